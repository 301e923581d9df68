"""Appends per second with judging, tree and digests, beside the raw driver and beside ``eventsourcing``.

Each writer appends one small event after another to a stream of its own. What the raw driver does is said in
raw_appends.py, and what ``eventsourcing`` does in peer_appends.py. The wanted ratios are those of the event log's
issue; "raw driver,
same tables" is what the committer costs, "bare tables" what it and the log's triggers and partitions cost together.
Rounds alternate; figures are medians, and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import sys
import tempfile
import time
from asyncio import gather
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from unittest.mock import patch

import uvloop
from sqlalchemy import URL

from manent.adapters.store.batch import AppendRequest
from manent.adapters.store.committer import Verdicts
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.postgres import PostgresEventStore, ensure_postgres_log
from manent.adapters.store.sql import SQLEventStore
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.system import RandomIds, SystemClock
from manent.domain.records import EventContext
from tests.benchmarks.peer_appends import Peer, peer_postgres, peer_sqlite
from tests.benchmarks.raw_appends import Raw, RawLog, raw_postgres, raw_sqlite
from tests.support.conversation import said
from tests.support.postgres import serving_postgres

WRITERS = (1, 16, 64, 256)
EVENT = said("user", "Hello there!")
CONTEXT = EventContext(tenant="acme", actor="ann", request_id="req_0123456789abcdef")
# At so many writers: of the raw driver's speed, and times that of eventsourcing. A lone append's p99, in raw commits'.
WANTED_WRITERS, WANTED_OF_RAW, WANTED_OF_PEER, WANTED_LONE = 64, 0.6, 10.0, 2.0


@dataclass(frozen=True)
class _Sides:
    """What is measured. Manent's log and the raw drivers' tables grow alike."""

    store: SQLEventStore
    raw: Raw
    bare: Raw
    peer: Peer | None
    rows: RawLog = field(default_factory=RawLog)
    bare_rows: RawLog = field(default_factory=RawLog)


@dataclass
class _Round:
    """What was measured: appends per second, the wait or commit (in seconds) that 99 of 100 stayed within."""

    ours: float
    raw: float
    bare: float
    peer: float
    ours_p99_s: float
    raw_p99_s: float
    batch: float


def compare(*, appends: int = 4000, rounds: int = 5) -> None:
    """Measure SQLite and PostgreSQL, and print a table for each."""
    uvloop.run(_compare(appends, rounds))  # as the server does


async def _compare(appends: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="manent-bench-") as folder:
        await _measure("SQLite (WAL, FULL)", lambda: _sqlite(Path(folder)), appends, rounds)
    with serving_postgres(fsync=True) as server, ExitStack() as databases:
        urls = [databases.enter_context(server.database()) for _ in range(4)]
        await _measure("PostgreSQL", lambda: _postgres(*urls), appends, rounds)


async def _measure(
    name: str, opened: Callable[[], AbstractAsyncContextManager[_Sides]], appends: int, rounds: int
) -> None:
    sys.stdout.write(f"Appends per second, {name}; medians of {rounds} rounds of {appends}:\n")
    async with opened() as sides:
        if sides.peer is None:
            sys.stdout.write("  eventsourcing needs psycopg for PostgreSQL, which is not installed here\n")
        for writers in WRITERS:
            count = max(writers, appends // (4 if writers == 1 else 1) // writers * writers)
            await _round(sides, writers, count)  # warms all of them up
            measured = [await _round(sides, writers, count) for _ in range(rounds)]
            sys.stdout.writelines(f"{line}\n" for line in _lines(writers, measured))


async def _round(sides: _Sides, writers: int, count: int) -> _Round:
    speed, waits_s, sizes = await _ours(sides.store, writers, count)
    commits_s = await sides.raw(sides.rows.batches(sizes, EVENT, CONTEXT))
    bare_s = await sides.bare(sides.bare_rows.batches(sizes, EVENT, CONTEXT))
    return _Round(
        ours=speed,
        raw=count / sum(commits_s),
        bare=count / sum(bare_s),
        peer=await sides.peer(writers, count // 4) if sides.peer else 0.0,
        ours_p99_s=_p99(waits_s),
        raw_p99_s=_p99(commits_s),
        batch=count / len(sizes),
    )


async def _ours(store: SQLEventStore, writers: int, count: int) -> tuple[float, list[float], list[int]]:
    """Appends per second, how long each waited, and how many were in each batch."""
    waits_s: list[float] = []
    name = time.time_ns()

    async def writer(number: int) -> None:
        for version in range(count // writers):
            began = time.perf_counter()
            await store.append(f"session-{name}-{number}", [EVENT], expected_version=version, context=CONTEXT)
            waits_s.append(time.perf_counter() - began)

    with _noted_batches(store) as sizes:
        began = time.perf_counter()
        await gather(*(writer(number) for number in range(writers)))
        return count / (time.perf_counter() - began), waits_s, sizes


@contextmanager
def _noted_batches(store: SQLEventStore) -> Iterator[list[int]]:
    """How many appends were in each batch that the committer gave its writer."""
    writer = store._committer._writer
    write, sizes = writer.write, list[int]()

    async def noted(requests: Sequence[AppendRequest]) -> Verdicts:
        sizes.append(len(requests))
        return await write(requests)

    with patch.object(writer, "write", noted):
        yield sizes


def _lines(writers: int, measured: Sequence[_Round]) -> Iterator[str]:
    raw, bare, peer = (median(one.ours / getattr(one, side) for one in measured) for side in ("raw", "bare", "peer"))
    p99 = median(one.ours_p99_s / one.raw_p99_s for one in measured)
    judged, lone = writers == WANTED_WRITERS, writers == 1
    yield (
        f"  {writers:3} writers, batches of {_median(measured, 'batch'):3.0f}   {_median(measured, 'ours'):7,.0f}/s"
        f"   p99 of a wait   {1000 * _median(measured, 'ours_p99_s'):6.2f} ms"
    )
    yield (
        f"      raw driver, same tables  {_median(measured, 'raw'):7,.0f}/s"
        f"   p99 of a commit {1000 * _median(measured, 'raw_p99_s'):6.2f} ms   {raw:5.2f} of it"
        + f" (wanted: at least {WANTED_OF_RAW})" * judged
        + f", p99 {p99:.2f} times its (wanted: at most {WANTED_LONE:.0f})" * lone
    )
    yield f"      raw driver, bare tables  {_median(measured, 'bare'):7,.0f}/s{'':29}{bare:5.2f} of it"
    if measured[0].peer:
        yield (
            f"      eventsourcing            {_median(measured, 'peer'):7,.0f}/s{'':29}{peer:5.1f} times it"
            + f" (wanted: at least {WANTED_OF_PEER:.0f})" * judged
        )


def _median(measured: Sequence[_Round], name: str) -> float:
    return float(median(getattr(one, name) for one in measured))


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncGenerator[_Sides, None]:
    ids = RandomIds()
    upgrade(folder / "ours.db")
    await ensure_log(folder / "ours.db", ids)
    store = SQLiteEventStore(folder / "ours.db", clock=SystemClock(), ids=ids)
    async with (
        aclosing(store),
        raw_sqlite(folder / "raw.db", bare=False) as raw,
        raw_sqlite(folder / "bare.db", bare=True) as bare,
        peer_sqlite(folder / "peer.db") as peer,
    ):
        yield _Sides(store, raw, bare, peer)


@asynccontextmanager
async def _postgres(url: URL, raw_url: URL, bare_url: URL, peer_url: URL) -> AsyncGenerator[_Sides, None]:
    ids = RandomIds()
    await ensure_postgres_log(url, ids)
    store = PostgresEventStore(url, clock=SystemClock(), ids=ids)
    async with (
        aclosing(store),
        raw_postgres(raw_url, bare=False) as raw,
        raw_postgres(bare_url, bare=True) as bare,
        peer_postgres(peer_url) as peer,
    ):
        yield _Sides(store, raw, bare, peer)


if __name__ == "__main__":
    compare(
        appends=int(sys.argv[1]) if len(sys.argv) > 1 else 4000, rounds=int(sys.argv[2]) if len(sys.argv) > 2 else 5
    )
