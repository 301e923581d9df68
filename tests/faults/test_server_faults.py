"""Servers, runners and clients that end at the wrong moment: nothing acknowledged is lost, all is closed once."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from openai import APIError, InternalServerError, Stream
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.support.commands import manent
from tests.support.server import Server, environment, manent_process, prepare_home, serving

TERMINAL = ("CompletionGenerated", "CompletionFailed", "CompletionCancelled")
BREAKAGES = ("missing", "config.json", "model.safetensors", "tokenizer.json")
LONG: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Write a very long story about the sea."}]


def eventually_503(http: httpx.Client, url: str) -> httpx.Response:
    """The answer, once it is a 503."""
    while (answer := http.get(url)).status_code != 503:
        time.sleep(0.01)
    return answer


def long_stream(server: Server, session_id: str) -> Stream[ChatCompletionChunk]:
    """A streamed answer that goes on for a while, in a session."""
    return server.client().chat.completions.create(
        model="default", messages=LONG, stream=True, max_tokens=400, extra_body={"session_id": session_id}
    )


def read(stream: Iterator[ChatCompletionChunk], texts: int) -> None:
    """Read until ``texts`` pieces of text came."""
    while texts > 0:
        texts -= any(choice.delta.content for choice in next(stream).choices)


def events(server: Server, session_id: str) -> list[dict[str, Any]]:
    """The events of a session, from the database itself."""
    done = manent("events", "--stream", f"session-{session_id}", "--json", home=server.home)
    return [json.loads(line) for line in done.stdout.splitlines()]


def terminal(server: Server, session_id: str) -> dict[str, Any]:
    """The one terminal event of a session's one completion; it may take a moment to come."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = [event for event in events(server, session_id) if event["header"]["type"] in TERMINAL]
        if found:
            assert len(found) == 1
            return found[0]
        time.sleep(0.05)
    raise AssertionError("there is no terminal event")


def count(server: Server, type_name: str) -> int:
    """How many events of a type there are."""
    return len(manent("events", "--type", type_name, "--json", home=server.home).stdout.splitlines())


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    """A server of its own."""
    with serving(home) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Iterator[Server]:
    """A server for tests that hurt its clients and runners, and leave it as it was; its model is loaded."""
    with serving(prepare_home(tmp_path_factory.mktemp("shared") / "home", starter_model)) as running:
        httpx.post(f"{running.address}/v1/models/default/load", timeout=120).raise_for_status()
        yield running


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Iterator[Server]:
    """A server whose models are broken, each in the way that it is called after."""
    home = tmp_path_factory.mktemp("broken")
    for breakage in BREAKAGES[1:]:
        folder = home / "models" / breakage
        folder.mkdir(parents=True)
        for file in starter_model.iterdir():
            if file.name != breakage:
                (folder / file.name).symlink_to(file)
        (folder / breakage).write_bytes(b"\x00broken")
    entries = "".join(f'[[models]]\nid = "{breakage}"\n' for breakage in BREAKAGES)
    (home / "models.toml").write_text(entries, encoding="utf-8")
    with serving(home) as running:
        yield running


def test_a_client_that_goes_away_cancels_its_completion(shared: Server) -> None:
    """Closing the socket mid-stream ends generation soon, and the log has what was produced until then."""
    stream = long_stream(shared, "left")
    read(stream, 3)
    stream.response.close()
    event = terminal(shared, "left")
    assert event["header"]["type"] == "CompletionCancelled"
    assert event["payload"]["reason"] == "client_disconnected"
    assert 3 <= event["payload"]["usage"]["completion_tokens"] < 100
    assert event["payload"]["text"]


def test_a_client_that_does_not_wait_for_a_whole_answer_cancels_it(shared: Server) -> None:
    """The same without streaming: a client that gives up stops the work."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{shared.address}/v1/chat/completions",
            json={"model": "default", "messages": LONG, "max_tokens": 2000, "session_id": "gave-up"},
            timeout=4,
        )
    assert terminal(shared, "gave-up")["payload"]["reason"] == "client_disconnected"


def test_a_killed_runner_fails_its_requests_and_the_next_starts_a_new_one(shared: Server) -> None:
    """kill -9 of the runner mid-stream is an error to the client, an event in the log, and nothing more."""
    before = count(shared, "RunnerCrashed")
    stream = long_stream(shared, "killed")
    read(stream, 2)
    (pid,) = shared.runner_pids()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(APIError, match="runner"):
        read(stream, 10_000)
    event = terminal(shared, "killed")
    assert (event["header"]["type"], event["payload"]["code"]) == ("CompletionFailed", "runner_crashed")
    again = shared.client().chat.completions.create(
        model="default", messages=[{"role": "user", "content": "Hi."}], max_tokens=4
    )
    assert again.choices[0].message.content
    assert shared.runner_pids() != [pid]
    assert count(shared, "RunnerCrashed") == before + 1


def test_a_request_that_is_not_streamed_gets_503_when_its_runner_dies(shared: Server) -> None:
    """The whole answer is refused with a wait, in OpenAI's envelope."""
    httpx.post(f"{shared.address}/v1/models/default/load", timeout=120).raise_for_status()
    (pid,) = shared.runner_pids()
    before = count(shared, "CompletionRequested")
    body = {"model": "default", "messages": LONG, "max_tokens": 400}
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(httpx.post, f"{shared.address}/v1/chat/completions", json=body, timeout=60)
        until_s = time.monotonic() + 20
        used_s = psutil.Process(pid).cpu_times().user
        while count(shared, "CompletionRequested") == before or psutil.Process(pid).cpu_times().user < used_s + 0.3:
            assert time.monotonic() < until_s
        os.kill(pid, signal.SIGKILL)
        answer = asking.result()
    code = answer.json()["error"]["code"]
    assert (answer.status_code, answer.headers["retry-after"], code) == (503, "1", "runner_crashed")


def test_a_killed_server_loses_nothing_acknowledged_and_closes_the_rest(home: Path) -> None:
    """kill -9 mid-stream: what was answered before stands, what was open is closed as interrupted at the next start."""
    with serving(home) as server:
        done = server.client().chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": "Hi."}],
            max_tokens=6,
            extra_body={"session_id": "done"},
        )
        stream = long_stream(server, "open")
        read(stream, 3)
        runners = [psutil.Process(pid) for pid in server.runner_pids()]
        server.kill()
        with pytest.raises((httpx.RemoteProtocolError, APIError)):
            read(stream, 10_000)
        _, alive = psutil.wait_procs(runners, timeout=10)
        assert alive == []
        assert not [event for event in events(server, "open") if event["header"]["type"] in TERMINAL]
    with serving(home) as server:
        event = terminal(server, "open")
        assert (event["header"]["type"], event["payload"]["code"]) == ("CompletionFailed", "interrupted")
        stored = httpx.get(f"{server.address}/v1/sessions/done/messages").json()["data"]
        assert stored[-1]["content"] == done.choices[0].message.content
        retried = server.client().chat.completions.create(
            model="default", messages=LONG, max_tokens=4, extra_body={"session_id": "open"}
        )
        assert retried.choices[0].message.content
        replayed = json.loads(manent("replay", "open", "--json", home=home).stdout)
        assert [message["role"] for message in replayed["messages"]] == ["user", "assistant"]


def test_ctrl_c_drains_and_exits_cleanly(server: Server) -> None:
    """A short answer that runs is finished and recorded; the exit code is 0 within 10 s."""
    stream = server.client().chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "Count to ten."}],
        max_tokens=24,
        stream=True,
        extra_body={"session_id": "drained"},
    )
    read(stream, 1)
    server.process.send_signal(signal.SIGINT)
    reasons = [choice.finish_reason for chunk in stream for choice in chunk.choices]
    assert reasons[-1] in {"stop", "length"}
    assert server.process.wait(timeout=10) == 0
    assert terminal(server, "drained")["header"]["type"] == "CompletionGenerated"


def test_a_drain_that_takes_too_long_cancels_and_still_exits_in_time(home: Path) -> None:
    """What cannot finish is closed as cancelled by the shutdown, its client is told, and the exit code is 0.

    Until then a balancer that asks reads why nothing new is taken, also on the port for monitoring.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(home, drain_s=2, metrics_port=port) as server, httpx.Client(timeout=5) as http:
        monitoring = f"http://127.0.0.1:{port}"
        stream = long_stream(server, "cut")
        read(stream, 1)
        assert http.get(f"{monitoring}/health/ready").json()["status"] == "ready"
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        for address in (server.address, monitoring):
            probe = eventually_503(http, f"{address}/health/ready")
            assert probe.json()["problems"] == {"draining": "the server is shutting down"}
            assert probe.headers["connection"] == ("close" if address == server.address else "keep-alive")
            assert http.get(f"{address}/health/startup").status_code == 200
        refused = http.post(f"{server.address}/v1/chat/completions", json={"model": "default", "messages": LONG})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert "manent_completions_active 1.0" in http.get(f"{monitoring}/metrics").text
        assert http.get(f"{monitoring}/v1/models").status_code == 404
        with pytest.raises(APIError, match="shut down"):
            read(stream, 10_000)
        assert server.process.wait(timeout=10) == 0
        assert time.monotonic() - started < 10
        assert terminal(server, "cut")["payload"]["reason"] == "shutting_down"


def test_a_second_ctrl_c_exits_at_once(server: Server) -> None:
    """Who presses twice does not wait; the next start closes what was open, and no runner is left behind."""
    stream = long_stream(server, "twice")
    read(stream, 1)
    runners = [psutil.Process(pid) for pid in server.runner_pids()]
    server.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=2) == 130
    _, alive = psutil.wait_procs(runners, timeout=10)
    assert alive == []


def test_a_taken_port_is_said(home: Path) -> None:
    """The message names the port and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = manent_process("serve", home=home, port=port)
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "MANENT_PORT=" in done.stderr


def test_a_data_folder_that_cannot_be_written_is_said(home: Path) -> None:
    """The message names the folder and the setting."""
    (home / "file").write_text("")
    done = manent_process("serve", home=home / "file" / "below")
    assert done.returncode == 1
    assert "MANENT_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_servers_do_not_share_a_home(shared: Server) -> None:
    """The second is refused and names the first's process."""
    done = manent_process("serve", home=shared.home)
    assert done.returncode == 1
    assert str(shared.pid) in done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "everywhere"}, "MANENT_HOST"),
        ({"port": "99999"}, "MANENT_PORT"),
        ({"prot": "80"}, "did you mean MANENT_PORT"),
        ({"database_url": "mysql://x"}, "SQLite"),
        ({"log_level": "loud"}, "MANENT_LOG_LEVEL"),
    ],
)
def test_wrong_settings_are_named(home: Path, settings: dict[str, str], said: str) -> None:
    """A usage error with the setting's name, and no traceback."""
    done = manent_process("serve", home=home, **settings)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_locked_database_is_503_and_passes(shared: Server) -> None:
    """While another program holds the database nothing is accepted; afterwards all is well."""
    other = sqlite3.connect(shared.home / "manent.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InternalServerError) as caught:
        shared.client().chat.completions.create(
            model="default", messages=[{"role": "user", "content": "Hi."}], max_tokens=2
        )
    assert (caught.value.status_code, caught.value.code) == (503, "store_unavailable")
    assert caught.value.response.headers["retry-after"]
    other.execute("ROLLBACK")
    other.close()
    shared.client().chat.completions.create(
        model="default", messages=[{"role": "user", "content": "Hi."}], max_tokens=2
    )


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_model_folder_is_503_with_the_reason(broken: Server, breakage: str) -> None:
    """The server runs, says what is wrong with the model, and answers everything else."""
    with pytest.raises(InternalServerError) as caught:
        broken.client().chat.completions.create(
            model=breakage, messages=[{"role": "user", "content": "Hi."}], max_tokens=2
        )
    assert (caught.value.status_code, caught.value.code) == (503, "model_load_failed")
    assert broken.client().models.list().data
    assert httpx.get(f"{broken.address}/health/live").status_code == 200
    logged = manent("events", "--type", "ModelLoadFailed", "--json", home=broken.home).stdout.splitlines()
    assert [json.loads(line)["payload"]["model_id"] for line in logged].count(breakage) == 1
    assert "Traceback" not in caught.value.message


def test_environment_is_clean() -> None:
    """A server under test sees no setting of whoever runs the tests."""
    assert [name for name in environment(Path("/x")) if name.startswith("MANENT_")] == ["MANENT_HOME", "MANENT_PORT"]
