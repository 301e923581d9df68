"""Real servers whose log goes nowhere: a pipe that nobody empties, a full disk, a closed stream. Requests go on."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import DEVNULL

import httpx
import pytest

from manent.adapters.logs.writer import WAITING_MAX
from tests.support.scrapes import samples_of
from tests.support.server import READY_S, environment

DROPPED = "manent_log_lines_dropped_total"
CHAT = {"model": "default", "messages": [{"role": "user", "content": "Hi."}]}
PIPE_BYTES = 4096
STOP_S = 20.0


def blocked() -> int:
    """The writing end of a small pipe whose reading end stays open and is never read."""
    reader, writer = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.set_inheritable(reader, False)  # noqa: FBT003 (the system's own API)
    HELD.append(reader)
    return writer


def full_disk() -> int:
    """A file to which no byte can be added."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full, which stands for a full disk")
    return os.open("/dev/full", os.O_WRONLY)


HELD: list[int] = []


@contextmanager
def server(home: Path, output: int | None) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """A server with the scripted engine that says everything to ``output``; None has both streams closed."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    home.mkdir()
    command = [sys.executable, "-m", "manent.app", "serve"]
    if output is None:
        command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    process = subprocess.Popen(
        command,
        env=environment(home, port=port, engine="scripted", log_level="debug", log_format="json"),
        cwd=home,
        stdin=DEVNULL,
        stdout=DEVNULL if output is None else output,
        stderr=DEVNULL if output is None else output,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            wait_until_it_answers(http, process)
            yield http, process
    finally:
        process.kill()
        process.wait(timeout=10)
        for descriptor in [*HELD, *([] if output is None else [output])]:
            os.close(descriptor)
        HELD.clear()


def wait_until_it_answers(http: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    """Its own words cannot be read."""
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            http.get("/health/live")
        except httpx.ConnectError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the server did not get ready")


def dropped(http: httpx.Client) -> float:
    """The lines that the server says it dropped."""
    (count,) = samples_of(http.get("/metrics").text)[DROPPED].values()
    return count


def goes_on(http: httpx.Client, requests: int) -> None:
    """Requests are answered, in whole and as streams, or refused."""
    for number in range(requests):
        answer = http.post("/v1/chat/completions", json={**CHAT, "stream": number % 2 == 0, "temperature": 0})
        assert answer.status_code == 200
    assert http.post("/v1/chat/completions", json={"temperature": 7}).status_code == 400


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "output",
    [pytest.param(full_disk, id="full disk"), pytest.param(lambda: None, id="closed", marks=pytest.mark.long)],
)
def test_a_log_that_cannot_be_written_costs_lines_alone(tmp_path: Path, output: Callable[[], int | None]) -> None:
    """Standard output and error are on a full disk, or closed: each line is counted, no file takes their place."""
    with server(tmp_path / "home", output()) as (http, process):
        goes_on(http, 4)
        deadline_s = time.monotonic() + 10
        while dropped(http) < 5:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=STOP_S) == 0


@pytest.mark.long
@pytest.mark.timeout(300)
def test_nobody_reads_the_log(tmp_path: Path) -> None:
    """The pipe is full at once: lines wait, and are dropped beyond the queue's bound; requests and a stop go on."""
    with server(tmp_path / "home", blocked()) as (http, process):
        goes_on(http, 40)
        assert dropped(http) == 0
        for _ in range(WAITING_MAX + 1000):
            assert http.get("/health/live").status_code == 200
        assert dropped(http) > 0
        goes_on(http, 4)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=STOP_S) == 0
