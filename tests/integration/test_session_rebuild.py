"""The tables that list sessions are dropped and made again from the log, also beside a server that records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import URL, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from manent.adapters.store import session_rebuild
from manent.adapters.store.codec import EVENT_TYPES
from manent.adapters.store.database import open_node, open_subscription_engine
from manent.adapters.store.schema import session_metadata, sessions
from manent.adapters.store.session_index import INDEXED_TYPES, IndexedEvent
from manent.adapters.store.session_rebuild import rebuild_session_index
from manent.adapters.store.sql import SQLEventStore
from manent.domain.events import (
    DomainEvent,
    SessionDeleted,
    SessionExpired,
    SessionMetadataChanged,
    SessionStarted,
    session_stream,
)
from manent.domain.records import EventContext
from tests.support.commands import manent
from tests.support.conversation import NOW_US, said
from tests.support.database import empty_database
from tests.support.fakes import CountingIds, FakeClock


@asynccontextmanager
async def opened(database: Path | URL) -> AsyncGenerator[tuple[SQLEventStore, AsyncEngine], None]:
    """A store of the database, and an engine for the rebuilding."""
    store = await open_node(database, clock=FakeClock(), ids=CountingIds())
    engine = open_subscription_engine(database)
    try:
        yield store, engine
    finally:
        await engine.dispose()
        await store.aclose()


def life(number: int) -> list[DomainEvent]:
    """What happens to a session, one of many kinds of lives."""
    session_id = f"s{number}"
    started = SessionStarted(
        session_id=session_id,
        tenant="acme",
        owner=f"owner{number % 3}",
        metadata={"n": str(number), "app": "x"},
        ttl_s=60 if number % 2 else None,
        parent=None,
        started_at_us=NOW_US,
    )
    changed = SessionMetadataChanged(
        session_id=session_id, metadata={"app": "y"}, ttl_s=9, changed_by="ann", changed_at_us=NOW_US
    )
    expired = SessionExpired(session_id=session_id, ttl_s=9, last_used_at_us=NOW_US, expired_at_us=NOW_US)
    deleted = SessionDeleted(session_id=session_id, deleted_by="ann", deleted_at_us=NOW_US)
    said_so = said("user", "hi")
    ends: list[list[DomainEvent]] = [
        [],
        [changed],
        [changed, expired],
        [deleted],
        [changed, said_so, changed, deleted],
    ]
    return [started, said_so, *ends[number % 5]]


async def live(store: SQLEventStore, numbers: Sequence[int]) -> None:
    """Have sessions live their lives, an event at a time."""
    for number in numbers:
        for version, event in enumerate(life(number)):
            await store.append(
                session_stream(f"s{number}"),
                [event],
                expected_version=version,
                context=EventContext(tenant="acme", actor="ann"),
            )


async def tables(engine: AsyncEngine) -> list[list[tuple[Any, ...]]]:
    """All rows of both tables."""
    async with engine.begin() as connection:
        return [
            [tuple(row) for row in await connection.execute(select(table).order_by(*table.primary_key))]
            for table in (sessions, session_metadata)
        ]


async def test_the_tables_are_made_again_from_the_log(database: Path | URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped, or filled by hand with what never was: afterwards they hold what the commits wrote."""
    monkeypatch.setattr(session_rebuild, "POSITIONS_AT_ONCE", 7)
    async with opened(database) as (store, engine):
        await live(store, range(20))
        kept = await tables(engine)
        assert [len(rows) for rows in kept] == [20, 4 * 2 + 3 * 4 + 4 * 2]
        async with engine.begin() as connection:
            await connection.execute(delete(sessions).where(sessions.c.session_id == "s3"))
            await connection.execute(
                insert(sessions).values(tenant="acme", session_id="never", position=5, owner="x", status="open")
            )
        told: list[int] = []
        rebuilt = await rebuild_session_index(engine, progress=told.append)
        assert (rebuilt.events, rebuilt.sessions, sum(told)) == ((await store.head()).size, 20, rebuilt.events)
        assert await tables(engine) == kept
        assert (await rebuild_session_index(engine)).sessions == 20
        assert await tables(engine) == kept


async def test_sessions_that_live_during_the_rebuilding_are_right(
    database: Path | URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers go on all the time: nothing is refused, and the tables end as a rebuilding at rest leaves them."""
    monkeypatch.setattr(session_rebuild, "POSITIONS_AT_ONCE", 10)
    async with opened(database) as (store, engine):
        await live(store, range(30))
        writing = [asyncio.create_task(live(store, range(start, 90, 5))) for start in range(30, 35)]
        while not all(task.done() for task in writing):
            await rebuild_session_index(engine)
        await asyncio.gather(*writing)
        beside = await tables(engine)
        await rebuild_session_index(engine)
        assert await tables(engine) == beside
        assert len(beside[0]) == 90


def test_the_command_makes_them_again(tmp_path: Path) -> None:
    """``manent projections rebuild sessions``, with no Redis and beside nothing."""
    empty_database(tmp_path / "manent.db")
    missing = manent("projections", "rebuild", "sessions", home=tmp_path / "none")
    assert missing.returncode != 0

    async def record() -> None:
        async with opened(tmp_path / "manent.db") as (store, _):
            await live(store, range(5))

    asyncio.run(record())
    done = manent("projections", "rebuild", "sessions", "--json", home=tmp_path)
    assert json.loads(done.stdout) == {"object": "projections.rebuild", "events": 18, "sessions": 5}, done.stderr


async def test_an_empty_log_has_empty_tables(database: Path | URL) -> None:
    """Nothing is made of nothing."""
    async with opened(database) as (_, engine):
        assert (await rebuild_session_index(engine)).sessions == 0


def test_the_indexed_types_are_those_of_the_events() -> None:
    """A new event that changes the tables is read by the rebuilding, too."""
    assert {name for name, (kind, _) in EVENT_TYPES.items() if kind in get_args(IndexedEvent)} == set(INDEXED_TYPES)
