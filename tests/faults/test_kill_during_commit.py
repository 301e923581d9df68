"""kill -9 while many appends are committed, again and again: what was acknowledged stands, and the log is whole."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import URL

from manent.adapters.store.database import open_store
from tests.support.fakes import CountingIds, FakeClock
from tests.support.log import tree_of, whole_log

KILLS = 50
WRITERS = 32
REPOSITORY = Path(__file__).parents[2]

Acknowledged = tuple[str, int, int]
"""Stream, version and position, as the killed process told them."""


def append_and_kill(database: Path | URL, acknowledgements: int) -> list[Acknowledged]:
    """Let a process append until it acknowledged so many, kill it, and return all that it acknowledged."""
    name = str(database) if isinstance(database, Path) else database.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.append_forever", name, str(WRITERS)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(acknowledgements)]
    process.kill()
    lines += process.stdout.read().splitlines(keepends=True)
    process.stdout.close()
    process.wait(timeout=10)
    return [told(line) for line in lines if line.endswith(b"\n")]


def told(line: bytes) -> Acknowledged:
    """What a line of the process's output acknowledges: stream, version, position."""
    stream_id, version, position = line.decode().split()
    return stream_id, int(version), int(position)


async def check_log(database: Path | URL, acknowledged: Sequence[Acknowledged]) -> None:
    """Nothing acknowledged is missing, positions and streams have no gap, and the tree is that of the headers."""
    store = open_store(database, clock=FakeClock(), ids=CountingIds())
    entries = await whole_log(store)
    head = await store.head()
    await store.aclose()
    headers = [entry.header for entry in entries]
    assert [header.position for header in headers] == list(range(1, len(headers) + 1))
    assert head == tree_of(entries)
    versions: defaultdict[str, list[int]] = defaultdict(list)
    for header in headers:
        versions[header.stream_id].append(header.stream_version)
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())
    places = {(header.stream_id, header.stream_version): header.position for header in headers}
    assert all(places[stream_id, version] == position for stream_id, version, position in acknowledged)


@pytest.mark.timeout(300)
async def test_kill_during_commit(database: Path | URL) -> None:
    """Fifty kills at random instants: nothing acknowledged is lost, no gap, and tree and streams agree."""
    moments = random.Random(7)
    acknowledged = [entry for _ in range(KILLS) for entry in append_and_kill(database, moments.randint(1, 120))]
    assert len(acknowledged) > KILLS
    await check_log(database, acknowledged)
