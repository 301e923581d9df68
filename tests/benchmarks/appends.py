"""Appends per second with judging, tree and digests, beside the raw driver writing the same rows.

Each writer appends one small event after another to a stream of its own. The raw side writes the rows of the same
events to tables of the same shape without triggers, in transactions of as many rows as there are writers, with nothing
judged, digested or hashed, and the same durability. Rounds alternate; figures are medians.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from statistics import median

import uvloop
from sqlalchemy import URL

from manent.adapters.store.batch import AppendRequest, Batch, Head
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.postgres import PostgresEventStore, ensure_postgres_log
from manent.adapters.store.postgres_link import DEFAULT_LIMITS, connect
from manent.adapters.store.postgres_rows import WRITE, write_arguments
from manent.adapters.store.records import draft_events
from manent.adapters.store.sql import SQLEventStore
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.adapters.store.sqlite_writer import PRAGMAS, _write_rows
from manent.app.system import RandomIds, SystemClock
from manent.domain.merkle import Frontier
from manent.domain.records import EventContext
from tests.support.conversation import said
from tests.support.postgres import serving_postgres

TABLES = ("event_headers", "event_payloads", "tree_nodes", "event_models", "open_completions", "idempotency_keys")
WRITERS = (1, 16, 64, 256)
CONTEXT = EventContext(tenant="acme", actor="ann", request_id="req_0123456789abcdef")

Raw = Callable[[Sequence[Batch]], Awaitable[list[float]]]
"""Writes each batch in a transaction, into empty tables, and tells how long each took, in seconds."""


def compare(*, appends: int = 4000, rounds: int = 5) -> None:
    """Measure SQLite and PostgreSQL, and print a table for each."""
    uvloop.run(_compare(appends, rounds))  # as the server does


async def _compare(appends: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="manent-bench-") as folder:
        await _measure("SQLite (WAL, FULL)", lambda: _sqlite(Path(folder)), appends, rounds)
    with serving_postgres(fsync=True) as server, server.database() as url:
        await _measure("PostgreSQL", lambda: _postgres(url), appends, rounds)


async def _measure(
    name: str,
    opened: Callable[[], AbstractAsyncContextManager[tuple[SQLEventStore, Raw]]],
    appends: int,
    rounds: int,
) -> None:
    sys.stdout.write(f"Appends per second, {name}; {rounds} rounds of {appends}, medians:\n")
    async with opened() as (store, raw):
        for writers in WRITERS:
            count = max(writers, appends // (4 if writers == 1 else 1) // writers * writers)
            ours, theirs, lone, raw_lone = [], [], [], []
            for number in range(-1, rounds):
                speed, waits = await _ours(store, writers, count, f"{writers}-{number}-{time.time_ns()}")
                batches = _batches(writers, count)
                each_s = await raw(batches)
                if number >= 0:  # the round before the first warms both up
                    ours.append(speed)
                    theirs.append(count / sum(each_s))
                    lone.append(_p99(waits))
                    raw_lone.append(_p99(each_s))
            ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
            sys.stdout.write(
                f"  {writers:4} writers  {median(ours):8,.0f}/s beside {median(theirs):8,.0f}/s: {ratio:.2f}"
                f"   p99 of a wait {1000 * median(lone):6.2f} ms, of a raw commit {1000 * median(raw_lone):6.2f} ms\n"
            )


async def _ours(store: SQLEventStore, writers: int, count: int, name: str) -> tuple[float, list[float]]:
    waits: list[float] = []

    async def writer(number: int) -> None:
        for version in range(count // writers):
            began = time.perf_counter()
            await store.append(
                f"session-{name}-{number}", [said("user", "Hello there!")], expected_version=version, context=CONTEXT
            )
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(writer(number) for number in range(writers)))
    return count / (time.perf_counter() - began), waits


def _batches(size: int, count: int) -> list[Batch]:
    """What the writers would have the database write, judged beforehand; positions start at 1."""
    ids, clock = RandomIds(), SystemClock()
    head = Head(log_id="log_raw", recorded_at_us=0, frontier=Frontier())
    versions: dict[tuple[str, str], int] = {}
    batches = []
    for _ in range(count // size):
        batch = Batch(head=head, now_us=clock.now_us(), versions=versions, kept_answers={})
        for number in range(size):
            stream_id = f"session-raw-{number}"
            batch.judge(
                AppendRequest(
                    stream_id=stream_id,
                    drafts=draft_events([said("user", "Hello there!")], ids),
                    expected_version=versions.get(("acme", stream_id), 0),
                    context=CONTEXT,
                    idempotency=None,
                )
            )
        head = batch.head
        batches.append(batch)
    return batches


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncGenerator[tuple[SQLEventStore, Raw], None]:
    ours, bare = folder / "ours.db", folder / "raw.db"
    upgrade(ours)
    upgrade(bare)
    with closing(sqlite3.connect(bare)) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
    ids = RandomIds()
    await ensure_log(ours, ids)

    async def raw(batches: Sequence[Batch]) -> list[float]:
        return await asyncio.to_thread(_raw_sqlite, bare, batches)

    store = SQLiteEventStore(ours, clock=SystemClock(), ids=ids)
    try:
        yield store, raw
    finally:
        await store.aclose()


def _raw_sqlite(path: Path, batches: Sequence[Batch]) -> list[float]:
    each_s = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")
        for batch in batches:
            began = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            _write_rows(connection, batch)
            connection.execute("COMMIT")
            each_s.append(time.perf_counter() - began)
    return each_s


@asynccontextmanager
async def _postgres(url: URL) -> AsyncGenerator[tuple[SQLEventStore, Raw], None]:
    ids = RandomIds()
    await ensure_postgres_log(url, ids)
    bare = await connect(url, DEFAULT_LIMITS)
    await bare.execute("CREATE SCHEMA bare")
    for table in TABLES:
        await bare.execute(f"CREATE TABLE bare.{table} (LIKE public.{table} INCLUDING ALL)")
    await bare.execute("SET search_path = bare")

    async def raw(batches: Sequence[Batch]) -> list[float]:
        each_s = []
        for table in TABLES:
            await bare.execute(f"TRUNCATE {table}")
        for batch in batches:
            began = time.perf_counter()
            async with bare.transaction():
                await bare.execute(WRITE, *write_arguments(batch, None))
            each_s.append(time.perf_counter() - began)
        return each_s

    store = PostgresEventStore(url, clock=SystemClock(), ids=ids)
    try:
        yield store, raw
    finally:
        await store.aclose()
        await bare.close()


if __name__ == "__main__":
    compare(
        appends=int(sys.argv[1]) if len(sys.argv) > 1 else 4000, rounds=int(sys.argv[2]) if len(sys.argv) > 2 else 5
    )
