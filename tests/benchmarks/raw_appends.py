"""The raw driver, for comparison: the bytes of the same events, in batches of the same sizes, and no tree.

It inserts the header's columns, the payload and its salt, a transaction for each batch, with the same durability. It
judges, digests and hashes nothing, keeps no frontier, no keys and no look-up tables, and wakes nobody; rows are made
beforehand. Its tables grow as the log does. They are those of the migration, with every index, partition and trigger
(the head's position is moved for the triggers' sake); or, ``bare``, copies with the indexes alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

from sqlalchemy import URL

from manent.adapters.store.batch import AppendRequest, Batch, Head
from manent.adapters.store.frontier import HEADER_FIELDS
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.postgres import ensure_postgres_log
from manent.adapters.store.postgres_link import DEFAULT_LIMITS, Connection, connect
from manent.adapters.store.sqlite import ensure_log
from manent.adapters.store.sqlite_writer import PRAGMAS
from manent.app.system import RandomIds, SystemClock
from manent.domain.events import DomainEvent
from manent.domain.merkle import Frontier
from manent.domain.records import EventContext

TABLES = ("event_headers", "event_payloads")
PAYLOAD_FIELDS = ("position", "encoding", "salt", "payload")
# Of the ways of each driver to INSERT, the fastest (docs/decisions/0020).
SQLITE = [
    f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({', '.join('?' * len(fields))})"
    for table, fields in zip(TABLES, (HEADER_FIELDS, PAYLOAD_FIELDS), strict=True)
]

Raw = Callable[[Sequence[Batch]], Awaitable[list[float]]]
"""Writes each batch in a transaction, and tells how long each took, in seconds."""


class RawLog:
    """The rows that the raw driver is given, batch after batch, as those of a log that grows."""

    def __init__(self) -> None:
        self._ids, self._clock = RandomIds(), SystemClock()
        self._head = Head(log_id=self._ids.new("log_"), recorded_at_us=0, frontier=Frontier())
        self._rounds = 0

    def batches(self, sizes: Sequence[int], event: DomainEvent, context: EventContext) -> list[Batch]:
        """Batches of so many appends of ``event``, each to a stream of its own, which no earlier call has written."""
        self._rounds += 1
        versions: dict[tuple[str, str], int] = {}
        made = []
        for size in sizes:
            batch = Batch(head=self._head, now_us=self._clock.now_us(), versions=versions, kept_answers={})
            batch.judge(self._request(number, versions, event, context) for number in range(size))
            self._head = batch.head
            made.append(batch)
        return made

    def _request(
        self, number: int, versions: dict[tuple[str, str], int], event: DomainEvent, context: EventContext
    ) -> AppendRequest:
        stream_id = f"session-{self._rounds:019}-{number}"
        version = versions.get((context.tenant, stream_id), 0)
        return AppendRequest.of(
            stream_id, [event], expected_version=version, context=context, idempotency=None, ids=self._ids
        )


@asynccontextmanager
async def raw_sqlite(path: Path, *, bare: bool) -> AsyncGenerator[Raw, None]:
    """sqlite3 and ``executemany``, in a thread."""
    upgrade(path)
    await ensure_log(path, RandomIds())
    if bare:
        with closing(sqlite3.connect(path)) as connection:
            for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {trigger}")

    async def write(batches: Sequence[Batch]) -> list[float]:
        return await asyncio.to_thread(_write_sqlite, path, batches, bare)

    yield write


def _write_sqlite(path: Path, batches: Sequence[Batch], bare: bool) -> list[float]:  # noqa: FBT001 (through to_thread)
    each_s = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        for batch in batches:
            began = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(SQLITE[0], batch.headers)
            connection.executemany(SQLITE[1], batch.payloads)
            if not bare:
                connection.execute("UPDATE log_head SET position = ?", (batch.head.frontier.size,))
            connection.execute("COMMIT")
            each_s.append(time.perf_counter() - began)
    return each_s


@asynccontextmanager
async def raw_postgres(url: URL, *, bare: bool) -> AsyncGenerator[Raw, None]:
    """asyncpg and one INSERT from arrays for both tables, in a transaction."""
    await ensure_postgres_log(url, RandomIds())
    connection = await connect(url, DEFAULT_LIMITS)
    if bare:
        await connection.execute("CREATE SCHEMA bare")
        for table in TABLES:
            await connection.execute(f"CREATE TABLE bare.{table} (LIKE public.{table} INCLUDING ALL)")
        await connection.execute("SET search_path = bare")
    statement = await _insert_from_arrays(connection)

    async def write(batches: Sequence[Batch]) -> list[float]:
        each_s = []
        arrays = [[*zip(*batch.headers, strict=True), *zip(*batch.payloads, strict=True)] for batch in batches]
        for batch, columns in zip(batches, arrays, strict=True):
            began = time.perf_counter()
            async with connection.transaction():
                await connection.execute(statement, *columns)
                if not bare:
                    await connection.execute("UPDATE log_head SET position = $1", batch.head.frontier.size)
            each_s.append(time.perf_counter() - began)
        return each_s

    try:
        yield write
    finally:
        await connection.close()


async def _insert_from_arrays(connection: Connection) -> str:
    numbers = iter(range(1, 100))
    inserts = []
    for table, fields in zip(TABLES, (HEADER_FIELDS, PAYLOAD_FIELDS), strict=True):
        found = await connection.fetch(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = $1::text::regclass", table
        )
        types = dict(map(tuple, found))
        arrays = ", ".join(f"${next(numbers)}::{types[name]}[]" for name in fields)
        inserts.append(f"INSERT INTO {table} ({', '.join(fields)}) SELECT * FROM unnest({arrays})")
    return f"WITH headers AS ({inserts[0]}) {inserts[1]}"
