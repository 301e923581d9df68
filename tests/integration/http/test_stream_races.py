"""Streams whose readers differ, whose Valkey is hurt under a reader elsewhere, and which are cancelled as they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.script import Script
from manent.adapters.store.memory import MemoryEventStore
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.system import RandomIds, SystemClock
from manent.domain.ports import EventStore
from manent.domain.records import EventFilter
from tests.support.hooks import Held
from tests.support.http import raw_connection, running_server
from tests.support.redis_streams import redis_streams
from tests.support.streamed import completion_of, events_of, told
from tests.support.valkey import ValkeyServer

ROUNDS = 80
TERMINAL = ("CompletionGenerated", "CompletionFailed", "CompletionCancelled")


async def turns_of_the_loop(turns: int) -> None:
    """Let others run, so often."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def ends_of(store: EventStore, completions: Sequence[str]) -> dict[str, list[str]]:
    """The types of the terminal events of each completion."""
    ends: dict[str, list[str]] = {completion_id: [] for completion_id in completions}
    for type_name in TERMINAL:
        for entry in await store.query(EventFilter(type=type_name), limit=1000):
            ends[json.loads(entry.payload or b"{}")["completion_id"]].append(type_name)
    return ends


async def test_a_cancel_that_races_the_end_leaves_one_terminal_event(tmp_path: Path) -> None:
    """Clients that leave and sessions that are deleted around the end: recorded once, and told again as recorded."""
    upgrade(tmp_path / "manent.db")
    await ensure_log(tmp_path / "manent.db", RandomIds())
    store = SQLiteEventStore(tmp_path / "manent.db", clock=SystemClock(), ids=RandomIds())
    began = asyncio.Event()

    async def slowly(delta: int) -> None:
        if delta == 0:
            began.set()
        await turns_of_the_loop(3)

    script = Script(pieces=("a", "b", "c"), before_delta=slowly)
    async with running_server(script, store=store) as running:

        async def leave(number: int) -> str:
            async with raw_connection(running.port) as raw:
                await raw.post_chat(stream=True, session_id=f"s{number}")
                await began.wait()
                began.clear()
                (completion,) = running.use_cases.live
                await turns_of_the_loop(number // 2)
                if number % 2:
                    await running.http.delete(f"/v1/sessions/s{number}")
                raw.break_off()
            return completion.completion_id

        completions = []
        for number in range(ROUNDS):
            completions.append(await leave(number))
            while len(running.use_cases.live):  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0.001)
        while len(running.use_cases.live):  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.005)
        ends = await ends_of(store, completions)
        assert {len(types) for types in ends.values()} == {1}
        assert {types[0] for types in ends.values()} == {"CompletionGenerated", "CompletionCancelled"}
        for completion_id, (type_name,) in ends.items():
            answer = await running.http.get(f"/v1/chat/completions/{completion_id}/stream")
            last = events_of(answer.text)[-1]
            assert (last == "data: [DONE]") == (type_name == "CompletionGenerated"), last
    await store.aclose()


async def test_a_reader_that_never_reads_keeps_nobody_from_reading() -> None:
    """The one is cut off after its time; the other, who came later, has everything, and the log its success."""
    pieces, read = ("x" * 10_000,) * 1_000, asyncio.Event()

    async def wait_for_reader(delta: int) -> None:
        if delta == len(pieces) - 1:
            await read.wait()
        await asyncio.sleep(0)

    script = Script(pieces=pieces, before_delta=wait_for_reader)
    async with (
        running_server(script, limits=HttpLimits(stall_timeout_s=0.2)) as running,
        raw_connection(running.port, receive_buffer_bytes=4096) as idle,
    ):
        await idle.post_chat(stream=True, session_id="s", max_tokens=1_000)
        completion_id = completion_of((await idle.read_until(b'"object"')).decode())
        url, received = f"/v1/chat/completions/{completion_id}/stream", ""
        async with running.http.stream("GET", url) as answer:
            async for text in answer.aiter_text():
                received += text
                if running.server.connections == 1:  # the other one was cut off
                    read.set()
        assert told(events_of(received))["0 content"] == "".join(pieces)
        assert await running.log("CompletionCancelled") == []


@pytest.mark.parametrize("fault", ["flushed", "frozen", "gone"])
async def test_a_reader_on_another_server_outlives_what_befalls_the_buffer(
    own_valkey: ValkeyServer, fault: str
) -> None:
    """What it had not read from Valkey comes from the log: late, and whole."""
    store = MemoryEventStore(clock=SystemClock(), ids=RandomIds())
    held, log_id = Held(3), RandomIds().new("log_")
    pieces = ("a", "b", "c", "d", "e")
    async with (
        redis_streams(own_valkey, log_id=log_id) as one,
        redis_streams(own_valkey, log_id=log_id) as other,
        running_server(Script(pieces=pieces, before_delta=held), store=store, streams=one.buffer) as first,
        running_server(store=store, streams=other.buffer) as second,
    ):
        streaming = asyncio.create_task(first.chat(stream=True, session_id="s", n=1))
        await held.reached.wait()
        (completion,) = first.use_cases.live
        url, received = f"/v1/chat/completions/{completion.completion_id}/stream", ""
        async with second.http.stream("GET", url) as answer:
            texts = answer.aiter_text()
            while '"content":"a' not in received:
                received += await anext(texts)
            with hurt(own_valkey, fault):
                held.released.set()
                await streaming
                received += "".join([text async for text in texts])
        events = events_of(received)
        assert told(events)["0 content"] == "".join(pieces)
        assert events[-1] == "data: [DONE]"


@contextmanager
def hurt(valkey: ValkeyServer, fault: str) -> Iterator[None]:
    """Valkey flushed, or for as long as the block lasts frozen or gone."""
    if fault == "frozen":
        with valkey.frozen():
            yield
    elif fault == "flushed":
        valkey.run("FLUSHALL")
        yield
    else:
        valkey.kill()
        try:
            yield
        finally:
            valkey.start()
