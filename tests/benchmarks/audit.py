"""The auditor's side at size: every filter of the log and its whole verification, at 10,000 and at 1,000,000 events.

The logs are made through the store's own appends (``big_log``). Pages are what ``GET /v1/events`` reads, 100 events
from a random position on; small and large logs take turns, so that the machine's moods hit both.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles

import uvloop
from sqlalchemy import URL, make_url

from manent.adapters.store.audit import SQLLogAudit
from manent.adapters.store.database import open_node
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.open_rows import open_rows
from manent.app.system import RandomIds
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.ports import EventStore
from manent.domain.records import EventFilter, EventHeader
from manent.domain.transparency import Finding
from manent.domain.usecases.query_log import QueryLog
from manent.domain.usecases.verify_log import VerifyLog
from tests.benchmarks.big_log import MODELS, LogWriter
from tests.support.fakes import FakeClock
from tests.support.postgres import serving_postgres

SMALL, LARGE = 10_000, 1_000_000
PAGE = 100
PAGES = 200
SAMPLES = 200
HOUR_US = 3600 * 1_000_000
# The tree alone, as the target has it; with streams that must have no gaps; with every payload's digest.
KINDS = ("tree", "streams", "everything")

Asked = Callable[[EventHeader], EventFilter]
"""A filter that finds the event of a header, for a header from anywhere in the log."""


def _hour_from(header: EventHeader) -> EventFilter:
    return EventFilter(since_us=header.recorded_at_us, until_us=header.recorded_at_us + HOUR_US)


FILTERS: Mapping[str, Asked] = {
    "none (the tenant's)": lambda _: EventFilter(),
    "type, common": lambda _: EventFilter(type="MessageAppended"),
    "type, rare": lambda _: EventFilter(type="CompletionFailed"),
    "actor": lambda header: EventFilter(actor=header.actor),
    "actor + type": lambda header: EventFilter(actor=header.actor, type=header.type),
    "session": lambda header: EventFilter(stream_id=header.stream_id),
    "session + type": lambda header: EventFilter(stream_id=header.stream_id, type=header.type),
    "model, common": lambda _: EventFilter(model_id=MODELS[0]),
    "model, rare": lambda _: EventFilter(model_id=MODELS[-1]),
    "model + type": lambda _: EventFilter(model_id=MODELS[1], type="CompletionGenerated"),
    "request id": lambda header: EventFilter(request_id=header.request_id),
    "correlation id": lambda header: EventFilter(correlation_id=header.correlation_id),
    "time range": _hour_from,
    "time range + type": lambda header: replace(_hour_from(header), type="CompletionGenerated"),
    "time range + actor": lambda header: replace(_hour_from(header), actor=header.actor),
    "time range + model": lambda header: replace(_hour_from(header), model_id=MODELS[1]),
}


def compare(*, small: int = SMALL, large: int = LARGE, rounds: int = 5) -> None:
    """Make the logs, measure, and print."""
    with tempfile.TemporaryDirectory(prefix="manent-bench-") as folder:
        paths = {size: Path(folder) / f"{size}.db" for size in (small, large)}
        for size, path in paths.items():
            upgrade(path)
            uvloop.run(write_log(path, size))
        uvloop.run(_filters("SQLite", list(paths.values())))
        _verification("SQLite", paths, rounds)
    with serving_postgres() as server, server.database() as first, server.database() as second:
        urls = {small: first, large: second}
        for size, url in urls.items():
            uvloop.run(write_log(url, size))
            server.run("VACUUM ANALYZE", url=url)
        uvloop.run(_filters("PostgreSQL", list(urls.values())))
        _verification("PostgreSQL", urls, rounds)


async def write_log(database: Path | URL, size: int) -> None:
    """Fill an empty database, and say how long it took."""
    clock = FakeClock()
    began = time.perf_counter()
    async with _opened(database, clock) as store:
        await LogWriter(store, clock).write(size)
    took_s = time.perf_counter() - began
    sys.stdout.write(f"a log of {size:,} events was appended in {took_s:.0f} s ({size / took_s:,.0f} events/s)\n")


@asynccontextmanager
async def _opened(database: Path | URL, clock: FakeClock) -> AsyncGenerator[EventStore, None]:
    store = await open_node(database, clock=clock, ids=RandomIds())
    try:
        yield store
    finally:
        await store.aclose()


@dataclass
class _Log:
    """A log, and events of the reader's tenant from all over it."""

    query: QueryLog
    size: int
    samples: Sequence[EventHeader]

    async def page(self, event_filter: EventFilter, after: int) -> tuple[float, int]:
        """How long a page took, in milliseconds, and how many events it has."""
        began = time.perf_counter()
        page = await self.query.page(LOCAL_OPERATOR, event_filter, after_position=after, limit=PAGE)
        return 1000 * (time.perf_counter() - began), len(page.events)


async def _filters(name: str, databases: Sequence[Path | URL]) -> None:
    async with _opened(databases[0], FakeClock()) as small, _opened(databases[1], FakeClock()) as large:
        logs = [await _sampled(store) for store in (small, large)]
        sizes = " and ".join(f"{log.size:,}" for log in logs)
        sys.stdout.write(f"Pages of {PAGE} on {name} at {sizes} events, milliseconds over {PAGES} pages:\n")
        for label, asked in FILTERS.items():
            figures = await _measure(asked, logs)
            (_, p99, least), (_, large_p99, most) = figures
            ratio = f"ratio of p99s {large_p99 / p99:.2f}" if most < 1.2 * least else "pages of different sizes"
            cells = "   ".join(
                f"p50 {p50:5.2f}  p99 {p99:5.2f}  ({events:3.0f} events)" for p50, p99, events in figures
            )
            sys.stdout.write(f"  {label:20} {cells}   {ratio}\n")


async def _sampled(store: EventStore) -> _Log:
    source, size = random.Random(5), (await store.head()).size
    samples: list[EventHeader] = []
    while len(samples) < SAMPLES:
        found = await store.query(EventFilter(tenant="default"), after_position=source.randrange(size), limit=1)
        samples += [entry.header for entry in found if entry.header.correlation_id is not None]
    return _Log(QueryLog(store), size, samples)


async def _measure(asked: Asked, logs: Sequence[_Log]) -> list[tuple[float, float, float]]:
    source = random.Random(7)
    taken: list[list[tuple[float, int]]] = [[] for _ in logs]
    for number in range(-20, PAGES):  # the first ones warm up
        sample, share = source.randrange(SAMPLES), source.random()
        for log, pages in zip(logs, taken, strict=True):
            event_filter = asked(log.samples[sample])
            whole = event_filter.request_id or event_filter.correlation_id or event_filter.stream_id
            after = 0 if whole or event_filter.since_us else int(share * log.size * 0.9)
            page = await log.page(event_filter, after)
            if number >= 0:
                pages.append(page)
    return [
        (median(ms for ms, _ in pages), quantiles((ms for ms, _ in pages), n=100)[-1], median(n for _, n in pages))
        for pages in taken
    ]


def _verification(name: str, databases: Mapping[int, Path | URL], rounds: int) -> None:
    """Each verification in a process of its own, so that its memory is its own."""
    sys.stdout.write(f"Whole-log verification on {name}, medians of {rounds} rounds:\n")
    for what in KINDS:
        for size, database in databases.items():
            runs = [_verified_apart(database, what) for _ in range(rounds)]
            speed, per_core, memory = (median(column) for column in zip(*runs, strict=True))
            sys.stdout.write(
                f"  {what:10} at {size:>9,} events: {speed:9,.0f} events/s, {per_core:9,.0f} per second of CPU, "
                f"peak {memory:.0f} MiB\n"
            )


def _verified_apart(database: Path | URL, what: str) -> tuple[float, float, float]:
    where = str(database) if isinstance(database, Path) else database.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.benchmarks.audit", where, what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    speed, per_core, memory = json.loads(done.stdout)
    return speed, per_core, memory


class _TreeAudit(SQLLogAudit):
    """Headers, tree, order and head, and nothing else."""

    async def stream_gap(self, after: int, last: int) -> Finding | None:
        """Not looked for."""
        return None


async def _verify(database: Path | URL, what: str) -> int:
    rows = open_rows(database)
    audit = _TreeAudit(rows) if what == "tree" else SQLLogAudit(rows)
    try:
        result = await VerifyLog(audit).run(payloads=what == "everything")
    finally:
        await rows.aclose()
    assert result.sound, result.findings
    return result.tree.size


def main() -> None:
    """One verification: the database and what of it; prints events/s, events per second of CPU, and MiB at the peak."""
    where, what = sys.argv[1:]
    database = make_url(where) if "://" in where else Path(where)
    began, cpu = time.perf_counter(), time.process_time()
    size = asyncio.run(_verify(database, what))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    sys.stdout.write(json.dumps([size / took, size / cpu, memory]))


if __name__ == "__main__":
    main()
