"""A process that appends until it is killed: each line of its output is an append that was acknowledged.

python -m tests.support.append_forever DATABASE WRITERS
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from sqlalchemy import make_url

from manent.adapters.store.database import Database, open_node
from manent.app.system import RandomIds, SystemClock
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from tests.support.conversation import said

CONTEXT = EventContext(tenant="acme", actor="ann")


async def write(store: EventStore, stream_id: str) -> None:
    """Append to a stream of its own for ever, telling each acknowledged version at once."""
    version = 0
    while True:
        events = [said("user", "x" * 200) for _ in range(version % 3 + 1)]
        appended = await store.append(stream_id, events, expected_version=version, context=CONTEXT)
        version = appended.stream_version
        os.write(1, f"{stream_id} {version} {appended.position}\n".encode())


async def main(database: Database, writers: int) -> None:
    """Append with many writers."""
    store = await open_node(database, clock=SystemClock(), ids=RandomIds())
    async with asyncio.TaskGroup() as group:
        for number in range(writers):
            group.create_task(write(store, f"session-{os.getpid()}-{number}"))


if __name__ == "__main__":
    given = sys.argv[1]
    asyncio.run(main(make_url(given) if "://" in given else Path(given), int(sys.argv[2])))
