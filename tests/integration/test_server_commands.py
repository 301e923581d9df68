"""Commands that ask a running server: one address, one set of exit codes, and nothing that a server says is obeyed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support.commands import manent

ASKING = [
    ("chat", "hi"),
    ("models", "ps"),
    ("models", "load", "m"),
    ("models", "unload", "m"),
    ("sessions", "rerun", "s", "--from-version", "1"),
    ("sessions", "context", "c"),
]
HOSTILE = "\x1b[2J\u202e [bold]no[/bold] [/] \x07"
SHOWN = r"\x1b[2J\u202e [bold]no[/bold] [/] \x07"


@dataclass
class Answer:
    """What the server answers to all requests."""

    status: int = 200
    body: bytes = b""


class StrangeServer(ThreadingHTTPServer):
    """A server that is no Manent."""

    answer = Answer()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers as its server is told to."""

    server: StrangeServer

    def do_GET(self) -> None:
        """Read what is sent, and answer."""
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(self.server.answer.status)
        self.send_header("content-length", str(len(self.server.answer.body)))
        self.end_headers()
        self.wfile.write(self.server.answer.body)

    do_POST = do_GET  # noqa: N815 (the base class says what it is called)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[StrangeServer]:
    """It listens for as long as this file's tests run."""
    with StrangeServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_a_server_that_is_not_there_is_told_with_its_address(command: tuple[str, ...], tmp_path: Path) -> None:
    """3; the numbers of an IPv6 address stand in brackets (RFC 3986, section 3.2.2)."""
    done = manent(*command, home=tmp_path, host="::1", port=1)
    assert (done.returncode, "no server answers at http://[::1]:1; start" in done.stderr) == (3, True), done.stderr


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
@pytest.mark.parametrize(("status", "code"), [(400, 2), (403, 1), (404, 1), (409, 1), (503, 1)])
def test_what_a_server_refuses_with_is_shown_and_not_obeyed(
    server: StrangeServer, command: tuple[str, ...], status: int, code: int, tmp_path: Path
) -> None:
    """2 where the request was at fault, else 1; neither the terminal nor our own markup follows the words."""
    server.answer = Answer(status, json.dumps({"error": {"message": HOSTILE}}).encode())
    done = manent(*command, "--url", server.url, home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.rstrip("\n")) == (code, "", f"manent: {SHOWN}")


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
@pytest.mark.parametrize("body", [b"<html>", b"[]", b""])
def test_who_is_no_manent_is_told_apart(
    server: StrangeServer, command: tuple[str, ...], body: bytes, tmp_path: Path
) -> None:
    """3: Manent was not reached."""
    server.answer = Answer(200, body)
    done = manent(*command, "--url", server.url, home=tmp_path)
    assert (done.returncode, "and not as Manent does" in done.stderr) == (3, True), done.stderr


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
@pytest.mark.parametrize("url", ["127.0.0.1:9123", "http://[::1", "ftp://127.0.0.1"])
def test_an_address_that_is_none_is_usage(command: tuple[str, ...], url: str, tmp_path: Path) -> None:
    """2, with an address as it should be."""
    done = manent(*command, "--url", url, home=tmp_path)
    assert (done.returncode, "as http://127.0.0.1:" in done.stderr) == (2, True), done.stderr


def test_what_a_server_calls_its_models_is_shown_and_not_obeyed(server: StrangeServer, tmp_path: Path) -> None:
    """An answer is no more to be trusted than an error."""
    server.answer = Answer(200, json.dumps({"id": HOSTILE, "memory_bytes": 10**9, "unloaded": True}).encode())
    loaded = manent("models", "load", "m", "--url", server.url, home=tmp_path)
    assert loaded.stdout == f"{SHOWN} is loaded and holds 1.00 GB\n"
    unloaded = manent("models", "unload", "m", "--url", server.url, home=tmp_path)
    assert unloaded.stdout == f"{SHOWN} is unloaded\n"
