"""The event store on SQLite: WAL, ``synchronous=FULL``, one writer that commits in groups, several readers."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, event, insert, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from manent.adapters.store.committer import Committer
from manent.adapters.store.schema import log_head
from manent.adapters.store.sql import SQLEventStore
from manent.adapters.store.sqlite_writer import PRAGMAS, SQLiteBatchWriter
from manent.domain.merkle import EMPTY_ROOT
from manent.domain.ports import Clock, Ids

READERS_MAX = 4
LOCK_WAIT_S = 2.0
KEYS_KEPT_S = 24 * 3600.0


class SQLiteEventStore(SQLEventStore):
    """The log in one file. Each append is fsynced before it is acknowledged, together with what gathered meanwhile."""

    def __init__(self, path: Path, *, clock: Clock, ids: Ids, keys_kept_s: float = KEYS_KEPT_S) -> None:
        writer = SQLiteBatchWriter(path, clock=clock, lock_wait_s=LOCK_WAIT_S, keys_kept_s=keys_kept_s)
        readers = _engine(path, connections_max=READERS_MAX)
        event.listen(readers.sync_engine, "begin", _begin_deferred)
        super().__init__(committer=Committer(writer), readers=readers, ids=ids, name=path.name)


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
        connect_args={"timeout": LOCK_WAIT_S},
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
