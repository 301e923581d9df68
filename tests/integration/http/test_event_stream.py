"""The tail of the log over HTTP, on a real SQLite store: complete, in order, resumable, bounded, gone at the end."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.http.wire_responses import Event
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.system import RandomIds, SystemClock
from manent.domain.access import Principal
from manent.domain.errors import StoreUnavailable
from manent.domain.events import DomainEvent
from manent.domain.records import EventContext
from manent.domain.usecases.follow_log import TAILS_MAX
from manent.domain.usecases.log_reader import PAGE
from tests.support.conversation import requested, said, started
from tests.support.database import empty_database
from tests.support.http import WAIT_S, RawConnection, Running, raw_connection, running_server, unchunked

ANN = EventContext(tenant="default", actor="ann", request_id="r1", correlation_id="k1")
BOB = EventContext(tenant="default", actor="bob", request_id="r2", correlation_id="k2")
EVE = EventContext(tenant="rival", actor="eve")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[SQLiteEventStore, None]:
    """An empty log on disk."""
    empty_database(tmp_path / "manent.db")
    await ensure_log(tmp_path / "manent.db", RandomIds())
    made = another_store(tmp_path)
    yield made
    await made.aclose()


def another_store(folder: Path) -> SQLiteEventStore:
    """The same database as another process has it: what is committed here, the server is not told."""
    return SQLiteEventStore(folder / "manent.db", clock=SystemClock(), ids=RandomIds())


async def append(
    store: SQLiteEventStore, stream: str, *events: DomainEvent, version: int = 0, context: EventContext = ANN
) -> int:
    """Append, and return the last position."""
    return (await store.append(stream, events, expected_version=version, context=context)).position


@asynccontextmanager
async def tailing(running: Running, query: str = "", **headers: str) -> AsyncGenerator[AsyncIterator[Any], None]:
    """Open a tail; what follows are its events, each as (id, name, data)."""
    async with running.http.stream("GET", f"/v1/events/stream{query}", headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield sse(answer)


async def sse(answer: httpx.Response) -> AsyncIterator[tuple[int | None, str, Any]]:
    """Read events as the standard says; comments are dropped."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        data = fields["data"] if fields["data"] == "[DONE]" else json.loads(fields["data"])
        yield (int(fields["id"]) if "id" in fields else None, fields.get("event", "message"), data)
        fields = {}


async def take(tail: AsyncIterator[Any], count: int) -> list[int]:
    """The positions of the next ``count`` events, each of which is the object of the list under its position."""
    found: list[int] = []
    async with asyncio.timeout(WAIT_S):
        while len(found) < count:
            number, name, data = await anext(tail)
            assert name == "message", data
            assert Event.model_validate(data).header.position == number
            found.append(number)
    return found


async def test_what_is_there_comes_first_and_then_what_is_committed(store: SQLiteEventStore) -> None:
    """A tail goes from the past into the present without a seam, and its events are those of the list."""
    await append(store, "session-a", started(), said("user", "1"))
    async with running_server(store=store) as running, tailing(running) as tail:
        assert await take(tail, 2) == [1, 2]
        await append(store, "session-a", said("user", "2"), version=2)
        assert await take(tail, 1) == [3]
        await append(store, "session-a", said("user", "3"), version=3)
        async with asyncio.timeout(WAIT_S):
            _, _, data = await anext(tail)
        assert data == (await running.http.get("/v1/events/4")).json()


async def test_a_tail_goes_on_where_it_was_left(store: SQLiteEventStore) -> None:
    """Last-Event-ID resumes, ``after`` does too, and the header of a reconnect goes before the address."""
    await append(store, "session-a", started(), said("user", "1"), said("user", "2"))
    async with running_server(store=store) as running:
        async with tailing(running, "?after=1") as tail:
            assert await take(tail, 2) == [2, 3]
        async with tailing(running, "?after=1", **{"Last-Event-ID": "2"}) as tail:
            assert await take(tail, 1) == [3]
        async with tailing(running, "?after=3") as tail:
            await append(store, "session-b", started())
            assert await take(tail, 1) == [4]
        for wrong in ("evt_1", "-1", "٣", "9" * 19):
            answer = await running.http.get("/v1/events/stream", headers={b"last-event-id": wrong.encode()})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize(
    ("query", "positions"),
    [
        ("", [1, 2, 3, 4, 6, 7]),
        ("?session=b", [3, 4]),
        ("?stream=session-b&actor=ann", []),
        ("?actor=bob", [3, 4]),
        ("?model=m", [2, 4, 7]),
        ("?model=m&actor=ann", [2, 7]),
        ("?request_id=r2", [3, 4]),
        ("?correlation_id=k1&type=SessionStarted", [1, 6]),
        ("?min_position=4&after=2", [4, 6, 7]),
        ("?since=2020-01-01T00:00:00Z", [1, 2, 3, 4, 6, 7]),
        ("?since=4102444800000000", []),
    ],
)
async def test_a_tail_has_the_filters_of_the_list(store: SQLiteEventStore, query: str, positions: list[int]) -> None:
    """Filters hold for the past and for what comes, and nobody sees another tenant's events."""
    await append(store, "session-a", started(), requested("c1"))
    async with running_server(store=store) as running, tailing(running, query) as tail:
        await append(store, "session-b", started(), requested("c2"), context=BOB)
        await append(store, "session-a", started(), context=EVE)
        await append(store, "session-c", started(), requested("c3"))
        assert await take(tail, len(positions)) == positions
        listed = (await running.http.get(f"/v1/events{query}")).json()["data"]
        assert [event["header"]["position"] for event in listed] == positions


@pytest.mark.parametrize("query", ["?max_position=3", "?until=2100-01-01T00:00:00Z&max_position=3"])
async def test_a_tail_ends_where_nothing_can_follow(store: SQLiteEventStore, query: str) -> None:
    """A bound on positions ends the tail with ``done`` as soon as the log has reached it."""
    await append(store, "session-a", started(), said("user", "1"))
    async with running_server(store=store) as running, tailing(running, query) as tail:
        assert await take(tail, 2) == [1, 2]
        await append(store, "session-b", started(), started())
        assert await take(tail, 1) == [3]
        async with asyncio.timeout(WAIT_S):
            assert [event async for event in tail] == [(None, "done", "[DONE]")]


async def test_a_time_ends_the_tail_when_the_log_is_past_it(store: SQLiteEventStore) -> None:
    """``until`` ends once something later is recorded, and not before: a clock alone proves nothing."""
    await append(store, "session-a", started())
    until_us = int((time.time() + 0.2) * 1_000_000)
    async with running_server(store=store) as running, tailing(running, f"?until={until_us}") as tail:
        assert await take(tail, 1) == [1]
        await asyncio.sleep(0.3)
        await append(store, "session-b", started())
        async with asyncio.timeout(WAIT_S):
            assert [event async for event in tail] == [(None, "done", "[DONE]")]


async def test_silence_is_kept_alive_by_a_comment_that_is_no_event(store: SQLiteEventStore) -> None:
    """``: ping`` has one newline: behind an id, a blank line would be an empty event to some clients."""
    await append(store, "session-a", started())
    received, is_appended = "", False
    async with (
        running_server(store=store, limits=HttpLimits(ping_interval_s=0.05)) as running,
        running.http.stream("GET", "/v1/events/stream?type=SessionStarted") as answer,
        asyncio.timeout(WAIT_S),
    ):
        async for text in answer.aiter_text():
            received += text
            if received.count(": ping") >= 4 and not is_appended:
                is_appended = True
                await append(store, "session-b", said("user", "not asked for"), started())
            if "id: 3" in received:
                break
    assert re.fullmatch(r": ping\nid: 1\ndata: [^\n]+\n\n(: ping\n){3,}id: 3\ndata: [^\n]+\n\n", received)


async def test_racing_appends_reach_every_tail_once_and_in_order(store: SQLiteEventStore, tmp_path: Path) -> None:
    """Eight writers, half of them where the server is not told, and four tails: no position missing, none twice."""
    elsewhere = another_store(tmp_path)

    async def write(number: int) -> None:
        where = store if number % 2 else elsewhere
        for version in range(50):
            await append(where, f"session-{number}", said("user", str(version)), version=version)

    async def read(running: Running) -> list[int]:
        async with tailing(running) as tail:
            return await take(tail, 400)

    try:
        async with running_server(store=store) as running, asyncio.TaskGroup() as group:
            tails = [group.create_task(read(running)) for _ in range(4)]
            for number in range(8):
                group.create_task(write(number))
        assert [await tail for tail in tails] == [list(range(1, 401))] * 4
    finally:
        await elsewhere.aclose()


async def test_other_processes_are_followed_by_polling(store: SQLiteEventStore, tmp_path: Path) -> None:
    """Nobody tells the server of another process's commits; it looks, twice a second."""
    elsewhere = another_store(tmp_path)
    try:
        async with running_server(store=store) as running, tailing(running) as tail:
            for number in range(3):
                await append(elsewhere, f"session-{number}", started())
                assert await take(tail, 1) == [number + 1]
    finally:
        await elsewhere.aclose()


async def large_log(store: SQLiteEventStore, events: int) -> None:
    """Events of 100 kB each: more than any socket buffers."""
    for version in range(events):
        await append(store, "session-a", said("user", "x" * 100_000), version=version)


async def test_a_reader_that_falls_behind_is_told_and_cut_off(store: SQLiteEventStore) -> None:
    """Who reads nothing for the limit gets what was under way, a last word that names the reason, and the end."""
    await large_log(store, 60)
    limits = HttpLimits(stall_timeout_s=0.2)
    async with (
        running_server(store=store, limits=limits) as running,
        raw_connection(running.port, receive_buffer_bytes=4096) as raw,
    ):
        await raw.send(b"GET /v1/events/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        await tails_are(running, 1)
        await tails_are(running, 0)
        events = await read_raw_events(raw)
        error = json.loads(events[-1].removeprefix("event: error\ndata: "))["error"]
        assert (error["code"], error["type"]) == ("slow_consumer", "server_error")
        ids = [int(event.partition("\n")[0].removeprefix("id: ")) for event in events[:-1]]
        assert ids == list(range(1, len(ids) + 1))
        assert 0 < len(ids) < 60
        async with tailing(running, **{"Last-Event-ID": str(ids[-1])}) as tail:
            assert await take(tail, 60 - len(ids)) == list(range(ids[-1] + 1, 61))


async def read_raw_events(raw: RawConnection) -> list[str]:
    """Read to the end; the blocks of the stream."""
    body = unchunked(await raw.read_to_end()).decode()
    return body.removeprefix(": ping\n").removesuffix("\n\n").split("\n\n")


async def test_a_reader_that_never_reads_leaves_nothing_open(store: SQLiteEventStore) -> None:
    """The last word waits for nobody: the connection is gone within Sanic's grace, read or not."""
    await large_log(store, 60)
    limits = HttpLimits(stall_timeout_s=0.1)
    async with (
        running_server(store=store, limits=limits) as running,
        raw_connection(running.port, receive_buffer_bytes=4096) as raw,
    ):
        running.app.config.GRACEFUL_TCP_CLOSE_TIMEOUT = 0.2
        await raw.send(b"GET /v1/events/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        await tails_are(running, 1)
        async with asyncio.timeout(WAIT_S):
            while running.server.connections:  # noqa: ASYNC110 (sockets send no event)
                await asyncio.sleep(0.01)
        assert running.use_cases.follow_log.open_tails == 0


async def test_pages_are_read_only_when_the_last_one_is_taken(
    store: SQLiteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by construction: a reader that reads nothing has one page read for it, however long the log."""
    await large_log(store, PAGE * 2)
    queries: list[int] = []
    query = SQLiteEventStore.query

    async def counted(self: SQLiteEventStore, *arguments: Any, **options: Any) -> Any:
        queries.append(options["limit"])
        return await query(self, *arguments, **options)

    monkeypatch.setattr(SQLiteEventStore, "query", counted)
    async with running_server(store=store) as running, raw_connection(running.port, receive_buffer_bytes=4096) as raw:
        await raw.send(b"GET /v1/events/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        await tails_are(running, 1)
        await asyncio.sleep(0.3)
        assert queries == [PAGE]


async def tails_are(running: Running, count: int) -> None:
    """Return once so many tails are open."""
    async with asyncio.timeout(WAIT_S):
        while running.use_cases.follow_log.open_tails != count:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.005)


async def test_tails_are_bounded_in_number(store: SQLiteEventStore) -> None:
    """One more than the bound is refused with a wait, and served as soon as another has left."""
    async with running_server(store=store) as running:
        connections = [raw_connection(running.port) for _ in range(TAILS_MAX)]
        opened = [await connection.__aenter__() for connection in connections]
        for raw in opened:
            await raw.send(b"GET /v1/events/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        await tails_are(running, TAILS_MAX)
        answer = await running.http.get("/v1/events/stream")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_many_tails")
        assert answer.headers["retry-after"] == "5"
        opened[0].break_off()
        await tails_are(running, TAILS_MAX - 1)
        await append(store, "session-a", started())
        async with tailing(running) as tail:
            assert await take(tail, 1) == [1]
        for connection in connections:
            await connection.__aexit__(None, None, None)
        await tails_are(running, 0)


async def test_a_shutdown_ends_every_tail_at_once(store: SQLiteEventStore) -> None:
    """Tails are told and gone when the draining begins; the close waits for none of them, and no new one opens."""
    await append(store, "session-a", started())
    async with running_server(store=store) as running, tailing(running) as tail:
        assert await take(tail, 1) == [1]
        began_s = time.monotonic()
        running.use_cases.follow_log.close()
        refused = await running.http.get("/v1/events/stream")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        await running.server.stop_accepting()
        async with asyncio.timeout(WAIT_S):
            ((number, name, data),) = [event async for event in tail]
        assert (number, name, data["error"]["code"]) == (None, "error", "shutting_down")
        await running.server.close(5.0)
        assert time.monotonic() - began_s < 1.0


@pytest.mark.parametrize(
    ("failure", "code"),
    [(StoreUnavailable("the disk is gone"), "store_unavailable"), (KeyError("a defect"), "internal_error")],
)
async def test_a_failure_ends_the_tail_with_its_name(
    store: SQLiteEventStore, monkeypatch: pytest.MonkeyPatch, failure: Exception, code: str
) -> None:
    """A tail that cannot go on says why as its last event, since its headers are out; it can be resumed."""

    async def failing(*_: object, **__: object) -> None:
        raise failure

    async with running_server(store=store) as running, tailing(running) as tail:
        await append(store, "session-a", started())
        assert await take(tail, 1) == [1]
        monkeypatch.setattr(SQLiteEventStore, "query", failing)
        await append(store, "session-b", started())
        async with asyncio.timeout(WAIT_S):
            assert [(name, data["error"]["code"]) async for _, name, data in tail] == [("error", code)]


async def test_following_needs_the_right_to_audit(store: SQLiteEventStore) -> None:
    """Whoever may not read the log may not follow it, nor read one event of it."""
    async with running_server(store=store, principal=Principal(tenant="default", subject="ann")) as running:
        for path in ("/v1/events/stream", "/v1/events/1", "/v1/events"):
            answer = await running.http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")


@pytest.mark.parametrize("position", ["2", "3", "0", "x", "-1", "9" * 30])
async def test_an_event_that_is_not_there_is_not_found(store: SQLiteEventStore, position: str) -> None:
    """A position beyond the head, another tenant's and what is no position have one answer."""
    await append(store, "session-a", started())
    await append(store, "session-a", started(), context=EVE)
    async with running_server(store=store) as running:
        assert (await running.http.get("/api/v1/events/1")).json()["header"]["position"] == 1
        answer = await running.http.get(f"/v1/events/{position}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "event_not_found")
