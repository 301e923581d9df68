"""What a request costs without a model: chats with the scripted engine, recorded on SQLite, beside bare Sanic.

Each server has one core for itself, where the system lets a process be bound to one; the client, a process of its own
with as little to do as possible, has the others. Rounds alternate, and the figures are medians. Since a shared machine
takes time away, what the server's process used of its core is told too: requests per second of CPU time.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import psutil
import uvloop

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.app import bootstrap
from manent.app.serve import serve_until_stopped
from manent.app.settings import Settings
from manent.domain.generation import GenerationRequest
from tests.support.server import environment

CONNECTIONS = 64
SECONDS = 4.0
WARM_S = 1.0
STREAMS = 100
CHUNKS = 200
PACE_S = 0.025
CHAT = {"model": "default", "messages": [{"role": "user", "content": "Hello, how are you today?"}]}
TARGET_PER_S = 3000
GAP_MS = 100


def serve_bare() -> None:
    """The child: Sanic with one handler that reads JSON and answers as much as a chat does."""
    from sanic import Request, Sanic, response  # noqa: PLC0415 (in the child only)
    from sanic.log import access_logger, logger  # noqa: PLC0415

    app = Sanic("bare", configure_logging=False)
    app.config.ACCESS_LOG = False
    app.config.MOTD = False
    logger.disabled = access_logger.disabled = True
    body = json.dumps({"id": "chatcmpl-" + "0" * 32, "choices": [{"message": {"content": "x" * 600}}]}).encode()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        json.loads(request.body)
        return response.raw(body, content_type="application/json")

    listening = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"127.0.0.1:{listening.getsockname()[1]}\n")
    sys.stdout.flush()

    async def serve() -> None:
        server = await app.create_server(sock=listening, return_asyncio_server=True)
        assert server is not None
        await server.startup()  # type: ignore[no-untyped-call]  # Sanic's
        await server.serve_forever()  # type: ignore[no-untyped-call]  # Sanic's

    uvloop.run(serve())


def serve_scripted() -> None:
    """The child: Manent as it is served, with a scripted engine that says 200 words, 40 a second, where it streams."""

    async def pace(_: int) -> None:
        await asyncio.sleep(PACE_S)

    few, many = Script(), Script(pieces=tuple(f" word{number}" for number in range(CHUNKS)), before_delta=pace)

    def script(request: GenerationRequest) -> Script:
        return many if request.parameters.max_tokens == CHUNKS else few

    setattr(bootstrap, "ScriptedEngine", lambda: ScriptedEngine(script))  # noqa: B010 (mypy would not have it assigned)
    serve_until_stopped(Settings())


class Asking(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, until it is told to stop."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self.answered = 0
        self.stopped = False
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Look whether the answer is whole."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        self.failed += not head.startswith(b"http/1.1 200")
        self._buffer = b""
        self.answered += 1
        if not self.stopped:
            self._transport.write(self._request)


class Reading(asyncio.Protocol):
    """One stream, and the longest silence between two reads of it after its first."""

    def __init__(self, request: bytes, done: asyncio.Future[None]) -> None:
        self._request = request
        self._done = done
        self._tail = b""
        self._last_s: float | None = None
        self.gap_s = 0.0
        self.chunks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note how long it was silent."""
        now_s = time.perf_counter()
        if self._last_s is not None:
            self.gap_s = max(self.gap_s, now_s - self._last_s)
        self._last_s = now_s
        self.chunks += data.count(b"data: {")
        self._tail = (self._tail + data)[-64:]
        if b"data: [DONE]" in self._tail and not self._done.done():
            self._done.set_result(None)


def _request(port: int, **members: Any) -> bytes:
    body = json.dumps({**CHAT, **members}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _same(protocol: asyncio.Protocol) -> asyncio.Protocol:
    return protocol


async def _load(port: int, pid: int) -> tuple[float, float]:
    """Requests per second, and per second of the server's CPU time."""
    loop, server = asyncio.get_running_loop(), psutil.Process(pid)
    asking = [Asking(_request(port)) for _ in range(CONNECTIONS)]
    transports = [(await loop.create_connection(partial(_same, one), "127.0.0.1", port))[0] for one in asking]
    await asyncio.sleep(WARM_S)
    answered, began_s, used = sum(one.answered for one in asking), time.perf_counter(), server.cpu_times()
    await asyncio.sleep(SECONDS)
    answered = sum(one.answered for one in asking) - answered
    seconds, now = time.perf_counter() - began_s, server.cpu_times()
    cpu_s = now.user + now.system - used.user - used.system
    for one in asking:
        one.stopped = True
    await asyncio.sleep(0.2)
    for transport in transports:
        transport.close()
    if failed := sum(one.failed for one in asking):
        raise RuntimeError(f"{failed} requests were not answered well")
    return answered / seconds, answered / cpu_s


async def _streams(port: int) -> tuple[int, float]:
    """Chunks of all streams, and the longest gap of any, in milliseconds."""
    loop = asyncio.get_running_loop()
    reading = [Reading(_request(port, stream=True, max_tokens=CHUNKS), loop.create_future()) for _ in range(STREAMS)]
    transports = [(await loop.create_connection(partial(_same, one), "127.0.0.1", port))[0] for one in reading]
    await asyncio.wait_for(asyncio.gather(*(one._done for one in reading)), timeout=120)
    for transport in transports:
        transport.close()
    return sum(one.chunks for one in reading), 1000 * max(one.gap_s for one in reading)


def _client(kind: str, port: int, pid: int) -> list[float]:
    """Run a client in a process of its own; its two figures."""
    arguments = [sys.executable, "-m", "tests.benchmarks.overhead_requests", kind, str(port), str(pid)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    figures: list[float] = json.loads(done.stdout)
    return figures


def _bind(pid: int, *, served: bool) -> None:
    """Give a process the first core, where it is a server, or all the others; where the system can."""
    cores = range(os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity") and len(cores) > 1:
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, cores[:1] if served else cores[1:])


@contextmanager
def _child(kind: str, home: Path) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its port and its process."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.overhead_requests", kind],
        env=environment(home, engine="scripted", log_level="warning"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        port = next(int(found[1]) for line in child.stdout if (found := re.search(r":(\d+)\b", line)))
        _bind(child.pid, served=True)
        yield port, child.pid
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def compare(*, rounds: int) -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        with _child("scripted", home) as (our_port, our_pid), _child("bare", home) as (bare_port, bare_pid):
            ours: list[list[float]] = []
            bare: list[list[float]] = []
            for number in range(rounds):
                sides = [(ours, our_port, our_pid), (bare, bare_port, bare_pid)]
                for figures, port, pid in sides if number % 2 else reversed(sides):
                    figures.append(_client("load", port, pid))
            chunks, gap_ms = _client("streams", our_port, our_pid)
    _print(ours, bare, chunks, gap_ms)


def _print(ours: list[list[float]], bare: list[list[float]], chunks: float, gap_ms: float) -> None:
    wall, cpu = (median(figures[side] for figures in ours) for side in (0, 1))
    bare_wall, bare_cpu = (median(figures[side] for figures in bare) for side in (0, 1))
    lines = (
        f"Chats of the scripted engine, recorded on SQLite, {CONNECTIONS} at once, one core; medians of {len(ours)}:",
        f"  requests per second      {wall:,.0f} beside bare Sanic's {bare_wall:,.0f} (target: {TARGET_PER_S:,})",
        f"  per second of CPU time   {cpu:,.0f} beside {bare_cpu:,.0f}",
        f"  {STREAMS} streams at once    {chunks:,.0f} chunks, longest gap {gap_ms:.0f} ms (target: {GAP_MS} ms)",
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1] in {"load", "streams"}:
        _bind(os.getpid(), served=False)
    if sys.argv[1] == "bare":
        serve_bare()
    elif sys.argv[1] == "scripted":
        serve_scripted()
    elif sys.argv[1] == "load":
        print(json.dumps(uvloop.run(_load(int(sys.argv[2]), int(sys.argv[3])))))  # noqa: T201 (the answer)
    elif sys.argv[1] == "streams":
        print(json.dumps(uvloop.run(_streams(int(sys.argv[2])))))  # noqa: T201 (the answer)
    else:
        compare(rounds=int(sys.argv[2]) if len(sys.argv) > 2 else 3)
