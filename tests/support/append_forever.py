"""Processes that append until they are killed, forked from one that has its imports behind it.

python -m tests.support.append_forever DATABASE WRITERS: each line of the input starts one. The first line of the output
is then its process id, each further one is an append that was acknowledged, and an empty one says that it ended.
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
        tell(f"{stream_id} {version} {appended.position}")


async def append(database: Database, writers: int) -> None:
    """Append with many writers."""
    store = await open_node(database, clock=SystemClock(), ids=RandomIds())
    async with asyncio.TaskGroup() as group:
        for number in range(writers):
            group.create_task(write(store, f"session-{os.getpid()}-{number}"))


def tell(line: str) -> None:
    """A line of the output: whole or not at all, since a pipe takes short ones at once."""
    os.write(1, f"{line}\n".encode())


def main(database: Database, writers: int) -> None:
    """Start one process after the other, as the input asks for them. Nothing is open here that they could inherit."""
    while sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            tell(str(os.getpid()))
            asyncio.run(append(database, writers))
        os.waitpid(pid, 0)
        tell("")


if __name__ == "__main__":
    given = sys.argv[1]
    main(make_url(given) if "://" in given else Path(given), int(sys.argv[2]))
