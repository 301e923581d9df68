"""The event store on SQLite: WAL, ``synchronous=FULL``, one writer that commits in groups, several readers."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import aiosqlite
from sqlalchemy import Connection, event, insert, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from manent.adapters.store.committer import Committer
from manent.adapters.store.event_query import in_positions
from manent.adapters.store.page_text import page_text, positions_text
from manent.adapters.store.schema import log_head
from manent.adapters.store.sql import SQLEventStore, log_entry, stream_event
from manent.adapters.store.sqlite_address import sqlite_address
from manent.adapters.store.sqlite_reader import SQLiteReader
from manent.adapters.store.sqlite_writer import PRAGMAS, SQLiteBatchWriter
from manent.domain.merkle import EMPTY_ROOT
from manent.domain.ports import Clock, Ids
from manent.domain.records import EventFilter, LogEntry, StreamEvent

READERS_MAX = 4
LOCK_WAIT_S = 2.0
KEYS_KEPT_S = 24 * 3600.0
VERSION_MAX = 2**62

_STEPS = (
    "SELECT h.stream_version, h.event_id, h.type, h.schema_version, p.payload "
    "FROM event_headers AS h LEFT JOIN event_payloads AS p ON p.position = h.position "
    "WHERE h.tenant = ? AND h.stream_id = ? AND h.stream_version > ? AND h.stream_version <= ? "
    "ORDER BY h.stream_version LIMIT ?"
)


class SQLiteEventStore(SQLEventStore):
    """The log in one file. Each append is fsynced before it is acknowledged, together with what gathered meanwhile."""

    def __init__(self, path: Path, *, clock: Clock, ids: Ids, keys_kept_s: float = KEYS_KEPT_S) -> None:
        writer = SQLiteBatchWriter(path, clock=clock, lock_wait_s=LOCK_WAIT_S, keys_kept_s=keys_kept_s)
        readers = _engine(path, connections_max=READERS_MAX)
        event.listen(readers.sync_engine, "begin", _begin_deferred)
        super().__init__(committer=Committer(writer), readers=readers, ids=ids, name=path.name)
        self._reader = SQLiteReader(path, threads_max=READERS_MAX, lock_wait_s=LOCK_WAIT_S)

    async def read_events(
        self, tenant: str, stream_id: str, *, after_version: int = 0, max_version: int | None = None, limit: int = 500
    ) -> Sequence[StreamEvent]:
        """See ``EventStore.read_events``."""
        last_version = VERSION_MAX if max_version is None else max_version

        def read(connection: sqlite3.Connection) -> list[StreamEvent]:
            rows = connection.execute(_STEPS, (tenant, stream_id, after_version, last_version, limit))
            return [stream_event(row) for row in rows]

        return await self._reader.read(read)

    async def query(
        self, event_filter: EventFilter, *, after_position: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[LogEntry]:
        """See ``EventStore.query``."""

        def read(connection: sqlite3.Connection) -> list[LogEntry]:
            wanted, look_up = event_filter, positions_text("sqlite", event_filter)
            if look_up is not None:
                wanted = in_positions(wanted, *connection.execute(*look_up).fetchone())
            page = page_text("sqlite", wanted, after_position=after_position, limit=limit, newest_first=newest_first)
            return [log_entry(row) for row in connection.execute(*page)]

        return await self._reader.read(read)

    async def aclose(self) -> None:
        """Commit what waits, then close every connection."""
        await super().aclose()
        await self._reader.aclose()


async def ensure_log(path: Path, ids: Ids) -> None:
    """Give a new database the identity and the head of its log; an existing one keeps its own."""
    engine = _engine(path, connections_max=1)
    event.listen(engine.sync_engine, "begin", _begin_immediate)
    head = {"id": 1, "log_id": ids.new("log_"), "position": 0, "recorded_at_us": 0, "frontier": b"", "root": EMPTY_ROOT}
    try:
        async with engine.begin() as connection:
            if (await connection.execute(select(log_head.c.id))).first() is None:
                await connection.execute(insert(log_head).values(head))
    finally:
        await engine.dispose()


def subscription_engine(path: Path) -> AsyncEngine:
    """An engine for ``SQLSubscriptionStore``: one connection, and transactions that begin with the write lock."""
    engine = _engine(path, connections_max=1)
    event.listen(engine.sync_engine, "begin", _begin_immediate)
    return engine


def _engine(path: Path, *, connections_max: int) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=LOCK_WAIT_S,
        async_creator=lambda: aiosqlite.connect(sqlite_address(path), uri=True, timeout=LOCK_WAIT_S),
    )
    event.listen(engine.sync_engine, "connect", _configure)
    return engine


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # The driver must not open transactions by itself: the begin events below do, of the right kind.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.execute(text("BEGIN IMMEDIATE"))


def _begin_deferred(connection: Connection) -> None:
    connection.execute(text("BEGIN"))
