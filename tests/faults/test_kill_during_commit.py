"""kill -9 while many appends are committed, again and again: what was acknowledged stands, and the log is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
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


class Appenders:
    """Processes that append, one after the other, each until it is killed."""

    def __init__(self, database: Path | URL) -> None:
        name = str(database) if isinstance(database, Path) else database.render_as_string(hide_password=False)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.append_forever", name, str(WRITERS)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def append_and_kill(self, acknowledgements: int) -> list[Acknowledged]:
        """Let one append until it acknowledged so many, kill it, and return all that it acknowledged."""
        asking, told = self._process.stdin, self._process.stdout
        assert asking is not None
        assert told is not None
        asking.write("\n")
        asking.flush()
        pid = int(told.readline())
        acknowledged = [self._acknowledged(told.readline()) for _ in range(acknowledgements)]
        os.kill(pid, signal.SIGKILL)
        while line := told.readline().strip():
            acknowledged.append(self._acknowledged(line))
        return acknowledged

    def close(self) -> None:
        """End what starts them."""
        self._process.communicate(timeout=10)

    def _acknowledged(self, line: str) -> Acknowledged:
        stream_id, version, position = line.split()
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
    with closing(Appenders(database)) as appenders:
        acknowledged = [entry for _ in range(KILLS) for entry in appenders.append_and_kill(moments.randint(1, 120))]
    assert len(acknowledged) > KILLS
    await check_log(database, acknowledged)
