"""``manent sessions`` and ``manent replay``: on the database with and without a server, reruns through one."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.commands import manent
from tests.support.server import Server, serving


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose server answers without a model."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    """The server, with a session s of two turns."""
    with serving(home, engine="scripted") as running:
        for text in ("one", "two"):
            body = {"model": "default", "session_id": "s", "messages": [{"role": "user", "content": text}]}
            assert httpx.post(f"{running.address}/v1/chat/completions", json=body).status_code == 200
        yield running


def shown(home: Path, *arguments: str) -> dict[str, object]:
    """The object that a command prints with --json."""
    done = manent(*arguments, "--json", home=home)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def said(home: Path, session_id: str, *options: str) -> list[str]:
    """What was said in a session."""
    messages = shown(home, "sessions", "show", session_id, *options)["messages"]
    return [message["content"] for message in messages]  # type: ignore[attr-defined]  # JSON


def test_a_session_is_shown_as_it_stood(server: Server) -> None:
    """By version, position and time; ``manent replay`` is the same command, with --at for short."""
    home = server.home
    assert len(said(home, "s")) == 4
    assert said(home, "s", "--as-of-version", "2") == said(home, "s", "--as-of-position", "2") == ["one"]
    assert said(home, "s", "--as-of", "2099-01-01T00:00:00Z") == said(home, "s")
    assert shown(home, "replay", "s", "--at", "2") == shown(home, "sessions", "show", "s", "--as-of-version", "2")
    readable = manent("sessions", "show", "s", home=home)
    assert "user: one" in readable.stdout
    assert "assistant: Hello" in readable.stdout


def test_a_session_is_forked_beside_a_running_server(server: Server) -> None:
    """The command writes to the log itself, and the server sees it at once."""
    fork = shown(server.home, "sessions", "fork", "s", "--at-version", "5", "--session-id", "f", "--metadata", "a=b=c")
    assert (fork["parent"], fork["metadata"]) == ({"session_id": "s", "version": 5}, {"a": "b=c"})
    assert httpx.get(f"{server.address}/v1/sessions/f").json() == fork
    readable = manent("sessions", "fork", "s", "--session-id", "g", home=server.home)
    assert readable.stdout == "g: 4 messages\n"


def test_a_rerun_is_followed_to_its_end(server: Server) -> None:
    """It prints how it ended, and is compared with its original."""
    port = server.address.rpartition(":")[2]
    done = manent(
        "sessions", "rerun", "s", "--from-version", "1", "--seed", "5", "--session-id", "r", "--json",
        home=server.home, port=port,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    assert (state["status"], state["turns_done"], state["session_id"]) == ("completed", 2, "r")
    diff = shown(server.home, "sessions", "diff", "s", "r")
    assert diff["counts"] == {"equal": 2, "changed": 0, "only_in_a": 0, "only_in_b": 0}
    readable = manent("sessions", "diff", "s", "r", home=server.home)
    assert "2 equal" in readable.stdout
    assert "turn 1 equal" in readable.stdout
    assert "tokens" in readable.stdout
    detached = manent(
        "sessions", "rerun", "s", "--from-version", "5", "--detach", "--url", server.address, home=server.home
    )
    assert "queued" in detached.stdout


def test_what_the_model_saw_is_shown(server: Server) -> None:
    """The prompt and whether it renders as it was recorded; a completion that is not there ends with 1."""
    logged = manent("events", "--session", "s", "--type", "CompletionRequested", "--json", home=server.home)
    completion_id = json.loads(logged.stdout.splitlines()[1])["payload"]["completion_id"]
    done = manent("sessions", "context", completion_id, "--url", server.address, home=server.home)
    assert done.returncode == 0, done.stderr
    assert "3 messages" in done.stdout
    assert "the prompt matches" in done.stdout
    assert "<user> one <end>" in done.stdout
    missing = manent("sessions", "context", "chatcmpl-none", "--url", server.address, home=server.home)
    assert (missing.returncode, "no completion" in missing.stderr) == (1, True)


def test_what_differs_is_shown(server: Server) -> None:
    """The first page of a comparison says how to see the next."""
    home = server.home
    shown(home, "sessions", "fork", "s", "--at-version", "1", "--session-id", "empty")
    done = manent("sessions", "diff", "s", "empty", "--limit", "1", home=home)
    assert "turn 1 only in a" in done.stdout
    assert "more with --after 1" in done.stderr


@pytest.mark.parametrize("file_format", ["events", "messages"])
def test_a_session_is_exported_and_imported(server: Server, tmp_path: Path, file_format: str) -> None:
    """Through a file, whole or not at all, and the log says that it was imported."""
    home, file = server.home, tmp_path / "s.file"
    done = manent("sessions", "export", "s", "--format", file_format, "--output", str(file), home=home)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [file]
    copy = f"copy-{file_format}"
    made = shown(home, "sessions", "import", str(file), "--session-id", copy)
    assert made["message_count"] == 4
    assert said(home, copy) == said(home, "s")
    logged = manent("events", "--session", copy, "--type", "SessionImported", "--json", home=home)
    assert json.loads(logged.stdout)["payload"]["format"] == file_format


def test_markdown_goes_to_the_terminal(server: Server) -> None:
    """Standard output is where an export goes without a file."""
    done = manent("sessions", "export", "s", "--format", "markdown", "--as-of-version", "2", home=server.home)
    assert done.stdout.endswith("## 1. user\n\n> one\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said_why"),
    [
        (("sessions", "show", "nobody"), 1, "no session 'nobody'"),
        (("sessions", "show", "s", "--as-of-version", "99"), 2, "has 1 to 9"),
        (("sessions", "show", "s", "--as-of", "noon"), 2, "--as-of"),
        (("sessions", "show", "s", "--as-of-version", "1", "--as-of-position", "1"), 2, "send one of them"),
        (("sessions", "fork", "s", "--session-id", "s"), 1, "exists already"),
        (("sessions", "fork", "s", "--metadata", "nothing"), 2, "key=value"),
        (("sessions", "diff", "s"), 2, "Missing argument"),
        (("sessions", "export", "nobody", "--output", "never"), 1, "no session"),
        (("sessions", "import", "missing.jsonl"), 2, "cannot be read"),
        (("sessions", "rerun", "s", "--from-version", "1", "--url", "http://127.0.0.1:9"), 3, "no server answers"),
    ],
)
def test_commands_say_what_is_wrong(server: Server, arguments: tuple[str, ...], code: int, said_why: str) -> None:
    """Exit codes and messages as documented: 1 no, 2 usage, 3 unreachable."""
    done = manent(*arguments, home=server.home)
    assert (done.returncode, said_why in done.stderr) == (code, True), done.stderr
    assert not (server.home / "never").exists()


def test_a_file_that_is_none_is_refused_by_its_line(server: Server, tmp_path: Path) -> None:
    """And nothing is imported."""
    file = tmp_path / "bad.jsonl"
    manent("sessions", "export", "s", "--output", str(file), home=server.home)
    file.write_bytes(file.read_bytes().replace(b'"two"', b'"TWO"'))
    done = manent("sessions", "import", str(file), "--session-id", "bad", home=server.home)
    assert done.returncode == 1
    assert "line 6: its payload" in done.stderr
    assert manent("sessions", "show", "bad", home=server.home).returncode == 1


def test_a_rerun_that_was_refused_or_failed_says_so(server: Server) -> None:
    """2 for a wish that is wrong, 1 for one that cannot be fulfilled."""
    options = ("--url", server.address)
    wrong = manent("sessions", "rerun", "s", "--from-version", "9", *options, home=server.home)
    assert (wrong.returncode, "nothing was answered" in wrong.stderr) == (2, True)
    unknown = manent("sessions", "rerun", "s", "--from-version", "1", "--model", "nothing", *options, home=server.home)
    assert (unknown.returncode, "there is no model" in unknown.stderr) == (1, True)


def test_everything_but_a_rerun_works_without_a_server(server: Server, tmp_path: Path) -> None:
    """The last test of this file: the server is stopped."""
    assert server.stop(signal.SIGTERM) == 0
    home = server.home
    assert len(said(home, "s")) == 4
    shown(home, "sessions", "fork", "s", "--session-id", "late")
    file = tmp_path / "late.jsonl"
    manent("sessions", "export", "late", "--output", str(file), home=home)
    shown(home, "sessions", "import", str(file), "--session-id", "later")
    assert said(home, "later") == said(home, "late")
    verified = manent("log", "verify", home=home)
    assert verified.returncode == 0, verified.stdout
