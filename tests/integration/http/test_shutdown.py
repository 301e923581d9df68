"""The order of a shutdown: no new connections, what runs goes on, and nothing outlives the deadline."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sanic import Sanic

from manent.adapters.inference.script import Script
from tests.support.http import WAIT_S, Running, raw_connection, running_server, sse_events
from tests.support.server import serving


class Gate:
    """A hook that holds every generation before its second delta until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, delta: int) -> None:
        """See ``Script.before_delta``."""
        if delta == 1:
            self.reached.set()
            await self.opened.wait()


async def connections_are(running: Running, count: int) -> None:
    """Return once so many connections are open."""
    async with asyncio.timeout(WAIT_S):
        while running.server.connections != count:  # noqa: ASYNC110 (sockets send no event)
            await asyncio.sleep(0.005)


async def test_what_runs_goes_on_and_nothing_new_begins() -> None:
    """After stop_accepting a stream still ends well, idle connections are closed, and nobody can connect."""
    gate = Gate()
    async with running_server(Script(before_delta=gate)) as running, raw_connection(running.port) as idle:
        await connections_are(running, 1)
        streaming = asyncio.create_task(running.chat(stream=True))
        whole = asyncio.create_task(running.chat())
        await asyncio.wait_for(gate.reached.wait(), WAIT_S)
        await connections_are(running, 3)
        await running.server.stop_accepting()
        assert await idle.read_to_end() == b""
        await connections_are(running, 2)
        async with httpx.AsyncClient() as other:
            with pytest.raises(httpx.ConnectError):
                await other.get(f"{running.address}/health/live")
        gate.opened.set()
        assert sse_events((await streaming).text)[-1] == "[DONE]"
        answer = await whole
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        await connections_are(running, 0)


async def test_the_deadline_holds() -> None:
    """A stream that does not end is cut at the deadline, its completion is closed, and the application forgotten."""
    gate = Gate()
    async with running_server(Script(before_delta=gate)) as running, raw_connection(running.port) as raw:
        await raw.post_chat(stream=True)
        await asyncio.wait_for(gate.reached.wait(), WAIT_S)
        started_s = time.monotonic()
        await running.server.close(0.1)
        assert time.monotonic() - started_s < 1.0
        assert running.server.connections == 0
        assert (await running.payload_of("CompletionCancelled"))["reason"] == "client_disconnected"
        assert running.app.name not in Sanic._app_registry
        await raw.read_to_end()


async def test_closing_at_once_waits_for_nothing() -> None:
    """With nothing running, a close takes no time, and a second one does nothing."""
    async with running_server() as running:
        await running.chat()
        started_s = time.monotonic()
        await running.server.close(5.0)
        await running.server.close(5.0)
        assert time.monotonic() - started_s < 0.5


def test_a_server_with_open_tails_stops_at_once(tmp_path: Path) -> None:
    """SIGTERM ends a real server in a moment, however many readers follow its log, and each is told."""
    with serving(tmp_path, engine="scripted") as server, ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=server.address, timeout=10))
        answers = [stack.enter_context(client.stream("GET", "/v1/events/stream")) for _ in range(3)]
        began_s = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        for answer in answers:
            assert '"code":"shutting_down"' in answer.read().decode()
        assert server.process.wait(timeout=10) == 0
        assert time.monotonic() - began_s < 3.0
