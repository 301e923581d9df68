"""A copy of a log that is being written, of either database: of one moment, whole, and nobody waits for it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sqlalchemy import URL

from manent.adapters.store.audit import SQLLogAudit
from manent.adapters.store.database import open_node
from manent.adapters.store.rows import SQLiteRows
from manent.adapters.store.snapshot import damage, snapshot_head, take_snapshot
from manent.app.system import RandomIds, SystemClock
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from manent.domain.usecases.verify_log import VerifyLog
from tests.support.conversation import said

CONTEXT = EventContext(tenant="acme", actor="ann")


async def write(store: EventStore, number: int, enough: asyncio.Event) -> None:
    """Append to a stream until it is enough."""
    version = 0
    while not enough.is_set():
        events = [said("user", "x" * 500) for _ in range(version % 3 + 1)]
        appended = await store.append(f"session-{number}", events, expected_version=version, context=CONTEXT)
        version = appended.stream_version


async def grown(store: EventStore, size: int) -> None:
    """Return once the log has so many events."""
    async with asyncio.timeout(20):
        while (await store.head()).size < size:  # noqa: ASYNC110 (the store sends no event)
            await asyncio.sleep(0.01)


async def test_a_snapshot_is_of_one_moment(database: Path | URL, tmp_path: Path) -> None:
    """It verifies as it lies there, holds what was committed before, and writers went on meanwhile."""
    store = await open_node(database, clock=SystemClock(), ids=RandomIds())
    enough = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(write(store, number, enough))
            await grown(store, 300)
            before = (await store.head()).size
            await take_snapshot(database, tmp_path / "copy.db")
            await grown(store, before + 1)
            enough.set()
        after = (await store.head()).size
    finally:
        await store.aclose()
    copied = snapshot_head(tmp_path / "copy.db")
    assert before <= copied.position < after
    assert [name for name in await asyncio.to_thread(os.listdir, tmp_path) if "copy" in name] == ["copy.db"]
    assert list(damage(tmp_path / "copy.db")) == []
    rows = SQLiteRows(tmp_path / "copy.db")
    try:
        verified = await VerifyLog(SQLLogAudit(rows)).run()
    finally:
        await rows.aclose()
    assert (verified.sound, verified.tree.size, verified.tree.root) == (True, copied.position, copied.root)
