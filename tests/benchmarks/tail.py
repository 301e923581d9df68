"""How long after its commit an event reaches a reader of the tail: over HTTP, on SQLite, everything in one process."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import uvloop

from manent.adapters.store.migrate import upgrade
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.system import RandomIds, SystemClock
from manent.domain.records import EventContext
from tests.support.conversation import said
from tests.support.http import RawConnection, raw_connection, running_server

TAILS = (1, 4, 16)
WRITERS = (1, 8)
APPENDS = 400
PAUSE_S = 0.005
ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)


def compare(rounds: int = 5) -> None:
    """Measure and print; each figure is the median over the rounds of what stands above it."""
    sys.stdout.write(
        f"From commit to delivery over HTTP on SQLite, medians of {rounds} rounds (target: p99 < 20 ms):\n"
    )
    for writers in WRITERS:
        for tails in TAILS:
            figures = [uvloop.run(_measure(writers, tails)) for _ in range(rounds)]
            p50_ms, p99_ms, commit_ms, noise_ms = (1000 * median(column) for column in zip(*figures, strict=True))
            sys.stdout.write(
                f"  {writers} writers, {tails:2} tails: p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms "
                f"(a commit takes {commit_ms:.1f} ms; a timer of the same loop is {noise_ms:.1f} ms late at p99)\n"
            )


async def _measure(writers: int, tails: int) -> tuple[float, float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        path, ids = Path(folder) / "manent.db", RandomIds()
        upgrade(path)
        await ensure_log(path, ids)
        store = SQLiteEventStore(path, clock=SystemClock(), ids=ids)
        try:
            return await _measure_on(store, writers, tails)
        finally:
            await store.aclose()


async def _measure_on(store: SQLiteEventStore, writers: int, tails: int) -> tuple[float, float, float, float]:
    committed_s: dict[int, float] = {}
    commits_s: list[float] = []

    async def write(number: int) -> None:
        context = EventContext(tenant="default", actor="ann")
        for version in range(APPENDS // writers):
            began_s = time.perf_counter()
            appended = await store.append(
                f"session-{number}", [said("user", "hello")], expected_version=version, context=context
            )
            committed_s[appended.position] = time.perf_counter()
            commits_s.append(committed_s[appended.position] - began_s)
            await asyncio.sleep(PAUSE_S)

    noise_s: list[float] = []

    async def idle() -> None:
        """What the machine and the loop do to any timer, for comparison."""
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(PAUSE_S)
            noise_s.append(time.perf_counter() - began_s - PAUSE_S)

    async with running_server(store=store) as running:
        opened = [raw_connection(running.port) for _ in range(tails)]
        readers = [await connection.__aenter__() for connection in opened]
        for raw in readers:
            await raw.send(b"GET /v1/events/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            await raw.read_until(b": ping\n")
        idling = asyncio.create_task(idle())
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(_read(raw)) for raw in readers]
            for number in range(writers):
                group.create_task(write(number))
        idling.cancel()
        for connection in opened:
            await connection.__aexit__(None, None, None)
    late_s = [at_s - committed_s[position] for task in following for position, at_s in task.result()]
    return median(late_s), quantiles(late_s, n=100)[-1], median(commits_s), quantiles(noise_s, n=100)[-1]


async def _read(raw: RawConnection) -> list[tuple[int, float]]:
    """When each position arrived."""
    arrived: list[tuple[int, float]] = []
    while len(arrived) < APPENDS:
        event = await raw.read_until(b"\n\n")
        arrived += [(int(found), time.perf_counter()) for found in ID.findall(event)]
    return arrived


if __name__ == "__main__":
    compare()
