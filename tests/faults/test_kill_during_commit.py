"""kill -9 while many appends are committed, again and again: what was acknowledged stands, and the log is whole."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from manent.adapters.store.codec import header_bytes
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.sqlite import SQLiteEventStore
from manent.domain.merkle import Frontier, leaf_hash
from manent.domain.records import EventFilter, EventHeader
from tests.support.fakes import CountingIds, FakeClock

KILLS = 50
WRITERS = 32
REPOSITORY = Path(__file__).parents[2]


def append_and_kill(path: Path, acknowledgements: int) -> list[tuple[str, int, int]]:
    """Let a process append until it acknowledged so many, kill it, and return all that it acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.append_forever", str(path), str(WRITERS)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(acknowledgements)]
    process.kill()
    lines += process.stdout.read().splitlines(keepends=True)
    process.stdout.close()
    process.wait(timeout=10)
    whole = [line.decode().split() for line in lines if line.endswith(b"\n")]
    return [(stream_id, int(version), int(position)) for stream_id, version, position in whole]


async def read_headers(path: Path) -> tuple[list[EventHeader], Frontier]:
    """Every header of the log, in order, and the head that the database keeps."""
    store = SQLiteEventStore(path, clock=FakeClock(), ids=CountingIds())
    headers: list[EventHeader] = []
    while page := await store.query(EventFilter(), after_position=len(headers), limit=1000):
        headers += [entry.header for entry in page]
    head = await store.head()
    await store.aclose()
    return headers, head


@pytest.mark.timeout(300)
async def test_kill_during_commit(tmp_path: Path) -> None:
    """Fifty kills at random instants: nothing acknowledged is lost, no gap, and tree and streams agree."""
    path = tmp_path / "manent.db"
    upgrade(path)
    moments = random.Random(7)
    acknowledged = [entry for _ in range(KILLS) for entry in append_and_kill(path, moments.randint(1, 120))]
    headers, head = await read_headers(path)
    assert len(acknowledged) > KILLS
    assert [header.position for header in headers] == list(range(1, len(headers) + 1))
    assert head == Frontier().extended([leaf_hash(header_bytes(header)) for header in headers])
    versions: defaultdict[str, list[int]] = defaultdict(list)
    for header in headers:
        versions[header.stream_id].append(header.stream_version)
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())
    places = {(header.stream_id, header.stream_version): header.position for header in headers}
    for stream_id, version, position in acknowledged:
        assert places[stream_id, version] == position
