"""Clients that leave, and clients that do not read: neither holds anything, and the log says what happened."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Sequence

import pytest
import uvloop

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.generation import RenderedPrompt
from manent.domain.messages import Message
from manent.domain.output_shape import OutputShape
from tests.support.http import USER, WAIT_S, Running, raw_connection, running_server, sse_events, unchunked


class Hold:
    """A hook that holds a generation before one of its deltas, for good."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.reached = asyncio.Event()

    async def __call__(self, delta: int) -> None:
        """See ``Script.before_delta``."""
        if delta == self._at:
            self.reached.set()
            await asyncio.Event().wait()


async def let_others_run(_delta: int) -> None:
    """Give the writer its turn between deltas."""
    await asyncio.sleep(0)


class SlowToRender(ScriptedEngine):
    """An engine that is still loading its model when the client leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.rendering = asyncio.Event()
        self.go_on = asyncio.Event()

    async def render(
        self, model_id: str, messages: Sequence[Message], *, shape: OutputShape | None = None
    ) -> RenderedPrompt:
        """Wait, then render."""
        self.rendering.set()
        await self.go_on.wait()
        return await super().render(model_id, messages, shape=shape)


async def nothing_runs(running: Running) -> None:
    """Return once no completion runs and no connection is open."""
    async with asyncio.timeout(WAIT_S):
        while len(running.use_cases.live) or running.server.connections:  # noqa: ASYNC110 (sockets send no event)
            await asyncio.sleep(0.005)


async def test_these_tests_run_on_uvloop() -> None:
    """The loop is the product's."""
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("padding_bytes", [0, 300_000])
async def test_a_client_that_leaves_cancels_its_completion(
    stream: bool,  # noqa: FBT001 (a parameter of the test)
    padding_bytes: int,
) -> None:
    """Streamed or not, and also behind a large body, a closed socket ends the generation and is recorded."""
    hold = Hold(2)
    async with running_server(Script(before_delta=hold)) as running, raw_connection(running.port) as raw:
        messages = [USER, {"role": "user", "content": "x" * padding_bytes}]
        await raw.post_chat(stream=stream, store=True, messages=messages)
        async with asyncio.timeout(WAIT_S):
            await hold.reached.wait()
        raw.break_off()
        payload = await running.payload_of("CompletionCancelled")
        assert payload["reason"] == "client_disconnected"
        assert payload["text"] == "Hello,"
        assert payload["usage"]["completion_tokens"] == 2
        assert list(running.engine.cancelled) == [payload["completion_id"]]
        await nothing_runs(running)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_before_acceptance_leaves_nothing(
    stream: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    """A request whose client is gone before it is recorded is neither recorded nor generated."""
    engine = SlowToRender()
    async with running_server(engine=engine) as running, raw_connection(running.port) as raw:
        await raw.post_chat(stream=stream)
        async with asyncio.timeout(WAIT_S):
            await engine.rendering.wait()
        raw.break_off()
        async with asyncio.timeout(WAIT_S):
            while running.server.connections:  # noqa: ASYNC110 (sockets send no event)
                await asyncio.sleep(0.005)
        engine.go_on.set()
        await nothing_runs(running)
        assert await running.log() == []
        assert not engine.requests


async def test_a_client_that_waits_for_a_busy_session_may_leave() -> None:
    """A client that gives up its place in the queue leaves no trace, and who holds the session goes on."""
    hold = Hold(1)
    async with (
        running_server(Script(before_delta=hold), session_wait_s=30) as running,
        raw_connection(running.port) as first,
        raw_connection(running.port) as second,
    ):
        await first.post_chat(stream=True, session_id="s")
        async with asyncio.timeout(WAIT_S):
            await hold.reached.wait()
        await second.post_chat(stream=True, session_id="s")
        async with asyncio.timeout(WAIT_S):
            while len(running.use_cases.live) < 2:  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0.005)
        second.break_off()
        await asyncio.sleep(0.05)
        assert len(await running.log("CompletionRequested")) == 1
        assert await running.log("CompletionCancelled") == []


async def test_a_client_that_only_half_closes_counts_as_gone() -> None:
    """A client that says it sends no more is taken to have left, as most servers do."""
    hold = Hold(1)
    async with running_server(Script(before_delta=hold)) as running, raw_connection(running.port) as raw:
        await raw.post_chat(stream=True)
        async with asyncio.timeout(WAIT_S):
            await hold.reached.wait()
        raw.half_close()
        assert (await running.payload_of("CompletionCancelled"))["reason"] == "client_disconnected"


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """A stream that nobody reads holds its generation for the limit and no longer; the log names the reason."""
    script = Script(pieces=("x" * 10_000,) * 4_000, before_delta=Hold(3_000))
    limits = HttpLimits(stall_timeout_s=0.2)
    async with (
        running_server(script, limits=limits) as running,
        raw_connection(running.port, receive_buffer_bytes=4096) as raw,
    ):
        await raw.post_chat(stream=True, max_tokens=4_000)
        payload = await running.payload_of("CompletionCancelled")
        assert payload["reason"] == "client_stalled"
        await nothing_runs(running)


async def test_an_unread_answer_that_is_finished_is_cut_off_too() -> None:
    """Where the generation has ended meanwhile, the log has it; only the connection is given up."""
    script = Script(pieces=("x" * 10_000,) * 2_000)
    limits = HttpLimits(stall_timeout_s=0.2)
    async with (
        running_server(script, limits=limits) as running,
        raw_connection(running.port, receive_buffer_bytes=4096) as raw,
    ):
        await raw.post_chat(stream=True, max_tokens=2_000)
        assert await running.payload_of("CompletionGenerated")
        await nothing_runs(running)


async def test_a_client_that_asks_on_without_reading_is_cut_off() -> None:
    """Pipelined requests whose answers nobody reads end the connection: no handler waits for its turn to write."""
    async with (
        running_server(limits=HttpLimits(stall_timeout_s=0.2)) as running,
        raw_connection(running.port, receive_buffer_bytes=4096) as raw,
    ):
        await raw.send(b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 200)
        await asyncio.sleep(0.1)
        assert running.server.connections == 1
        await nothing_runs(running)


async def test_a_slow_reader_gets_everything() -> None:
    """Back-pressure loses nothing: who reads slowly, but reads, has the whole stream and its end."""
    script = Script(pieces=("é" * 5_000,) * 200, before_delta=let_others_run)
    limits = HttpLimits(stall_timeout_s=2.0)
    async with (
        running_server(script, limits=limits) as running,
        raw_connection(running.port, receive_buffer_bytes=4096) as raw,
    ):
        await raw.post_chat(stream=True, max_tokens=200)
        received = bytearray()
        while b"data: [DONE]" not in received:
            received += await raw.read_some()
            await asyncio.sleep(0.001)
        text = "".join(
            choice["delta"].get("content", "")
            for event in sse_events(unchunked(bytes(received)).decode())[:-1]
            for choice in json.loads(event)["choices"]
        )
        assert text == "é" * 5_000 * 200
        assert await running.log("CompletionGenerated")


async def test_nothing_is_left_of_many_clients_that_leave(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred clients that leave at once leave no task, no connection, no open completion and no noise."""
    hold = Hold(1)
    async with running_server(Script(before_delta=hold)) as running:
        for number in range(100):
            async with raw_connection(running.port) as raw:
                await raw.post_chat(stream=number % 2 == 0)
                if number % 3:
                    await asyncio.sleep(0)
                raw.break_off()
        await nothing_runs(running)
        requested, cancelled = await running.log("CompletionRequested"), await running.log("CompletionCancelled")
        assert len(requested) == len(cancelled)
        gc.collect()
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        assert [task for task in asyncio.all_tasks() if "feed" in task.get_name()] == []
