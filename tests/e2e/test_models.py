"""Models of a real server, over HTTP and `manent models`: loads, unloads, pins, fallbacks, idleness, dead engines."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from openai import APIStatusError

from tests.support.commands import manent
from tests.support.server import Server, serving
from tests.support.tiny_models import make_tiny_model

REGISTRY = """# the registry of a test
[[models]]
id = "first"
path = "tiny-0"
aliases = ["default"]
auto_load = true

[[models]]
id = "brief"   # goes soon
path = "tiny-1"
idle_timeout_s = 0.5

[[models]]
id = "broken"
path = "nowhere"
fallback = ["first"]
"""
SAY = [{"role": "user", "content": "Say something."}]
WAIT_S = 60.0


@pytest.fixture(scope="module")
def models_server(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with tiny models; hangs are noticed within seconds."""
    home = tmp_path_factory.mktemp("home")
    for number in range(2):
        make_tiny_model(home / "models" / f"tiny-{number}", starter=starter_model, seed=number)
    (home / "models.toml").write_text(REGISTRY, encoding="utf-8")
    with serving(home, stall_timeout_s=10) as server:
        yield server


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the server brings about by itself."""
    until_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def ask(server: Server, path: str, method: str = "GET") -> httpx.Response:
    """One request."""
    return httpx.request(method, f"{server.address}{path}", timeout=WAIT_S)


def command(server: Server, *arguments: str) -> str:
    """What a command prints that ends well."""
    done = manent("models", *arguments, home=server.home, port=urlsplit(server.address).port)
    assert done.returncode == 0, done.stderr
    return done.stdout


def events(server: Server, type_name: str) -> list[dict[str, object]]:
    """The payloads of a type, oldest first."""
    found = ask(server, f"/v1/events?type={type_name}&limit=100").json()["data"]
    return [event["payload"] for event in found]


def test_what_is_to_be_loaded_at_the_start_is(models_server: Server) -> None:
    """The server answers at once, and is ready once the model is loaded."""
    until(lambda: ask(models_server, "/health/ready").status_code == 200)
    shown = ask(models_server, "/v1/models/default").json()
    assert (shown["id"], shown["status"]) == ("first", "loaded")
    memory = ask(models_server, "/v1/models/memory").json()
    assert memory["models_loaded"] == {"first": pytest.approx(shown["memory_bytes"] / 1e9, rel=0.1)}


def test_models_are_loaded_and_unloaded_from_the_command_line(models_server: Server) -> None:
    """`ps` shows how they stand, `--json` as the API says it; each change is an event with who asked for it."""
    command(models_server, "unload", "first")
    assert "was not in memory" in command(models_server, "unload", "first")
    assert "is loaded and holds" in command(models_server, "load", "default")
    first = json.loads(command(models_server, "ps", "--json").splitlines()[0])
    assert (first["id"], first["status"], first["requests"]) == ("first", "loaded", 0)
    assert "first" in command(models_server, "ps")
    unloaded = events(models_server, "ModelUnloaded")[0]
    assert (unloaded["reason"], unloaded["unloaded_by"]) == ("requested", "local")


def test_a_load_shows_how_far_it_is(models_server: Server) -> None:
    """Anybody may look while it goes on; who asked for it is answered once it is there."""
    ask(models_server, "/v1/models/brief/unload", "POST")
    with ThreadPoolExecutor() as threads:
        loading = threads.submit(ask, models_server, "/v1/models/brief/load", "POST")
        seen = []
        while not loading.done():
            seen.append(ask(models_server, "/v1/models/brief").json())
        assert loading.result().json()["status"] in {"loaded", "unloaded"}
    under_way = [shown for shown in seen if shown["status"] == "loading"]
    shares = [shown["progress"] for shown in under_way if shown["progress"] is not None]
    assert 0 < max(shares) < 1
    assert under_way[-1]["loading_s"] > 0


def test_a_pin_is_written_down_and_holds_in_the_running_server(models_server: Server) -> None:
    """The file keeps its comments; the event says who did it."""
    command(models_server, "pin", "default")
    assert ask(models_server, "/v1/models/first").json()["pinned"] is True
    command(models_server, "pin", "first", "--off")
    assert ask(models_server, "/v1/models/first").json()["pinned"] is False
    text = (models_server.home / "models.toml").read_text(encoding="utf-8")
    assert text == REGISTRY.replace('[[models]]\nid = "first"', '[[models]]\npin = false\nid = "first"')
    assert [event["pinned"] for event in events(models_server, "ModelPinChanged")] == [True, False]


def test_idle_models_are_unloaded(models_server: Server) -> None:
    """Complaint 11 of the peers: nobody has to ask for it, and the next request loads the model again."""
    client = models_server.client()
    for _ in range(2):
        client.chat.completions.create(model="brief", messages=SAY, max_tokens=2)  # type: ignore[arg-type]  # as JSON
        until(lambda: ask(models_server, "/v1/models/brief").json()["status"] == "unloaded")
    reasons = [event["reason"] for event in events(models_server, "ModelUnloaded") if event["model_id"] == "brief"]
    assert len(reasons) >= 2
    assert set(reasons) <= {"idle", "requested"}


def test_the_fallback_answers_and_both_models_are_recorded(models_server: Server) -> None:
    """The client sees which model answered; the log has the one that was asked for beside it."""
    answer = models_server.client().chat.completions.create(model="broken", messages=SAY, max_tokens=2)  # type: ignore[arg-type]  # as JSON
    assert answer.model == "first"
    asked = [event for event in events(models_server, "CompletionRequested") if event["model_asked"] == "broken"]
    assert [event["model_id"] for event in asked] == ["first"]
    assert "nowhere does not exist" in ask(models_server, "/v1/models/broken").json()["failure"]
    refused = ask(models_server, "/v1/models/broken/load", "POST")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_load_failed")


@pytest.mark.long
def test_an_engine_that_hangs_is_found_without_a_request(models_server: Server) -> None:
    """Complaint 3: readiness says so, requests fail fast, and the runner is replaced."""
    command(models_server, "load", "first")
    (hung,) = models_server.runner_pids()
    os.kill(hung, signal.SIGSTOP)
    until(lambda: ask(models_server, "/health/ready").status_code == 503)
    assert "no sign of life" in ask(models_server, "/health/ready").json()["problems"]["model first"]
    began_s = time.monotonic()
    with pytest.raises(APIStatusError, match="no sign of life"):
        models_server.client().chat.completions.create(model="first", messages=SAY, max_tokens=2)  # type: ignore[arg-type]  # as JSON
    assert time.monotonic() - began_s < 5
    until(lambda: ask(models_server, "/health/ready").status_code == 200)
    assert hung not in models_server.runner_pids()
    models_server.client().chat.completions.create(model="first", messages=SAY, max_tokens=2)  # type: ignore[arg-type]  # as JSON
    assert "no sign of life" in str(events(models_server, "RunnerCrashed")[0]["reason"])


def test_models_are_added_to_the_registry(models_server: Server, tmp_path: Path) -> None:
    """A folder that holds a model gets an entry; another does not, with the reason."""
    home = tmp_path / "home"
    home.mkdir()
    tiny = models_server.home / "models" / "tiny-1"
    done = manent("models", "add", str(tiny), "--id", "org/tiny", "--alias", "small", home=home)
    assert done.returncode == 0, done.stderr
    listed = manent("models", "list", "--json", home=home).stdout.splitlines()
    assert [json.loads(line)["model_id"] for line in listed] == ["smollm2-135m-instruct", "org/tiny"]
    refused = manent("models", "add", str(tmp_path / "none"), home=home)
    assert (refused.returncode, "does not exist" in refused.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [("ps",), ("load", "x"), ("unload", "x")])
def test_without_a_server_the_exit_code_says_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """3, and what to do."""
    done = manent("models", *arguments, home=tmp_path, port=1)
    assert (done.returncode, "start one with `manent serve`" in done.stderr) == (3, True)
