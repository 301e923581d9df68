"""PostgreSQL on a full disk: appends are refused and say so, what was acknowledged stands, and room mends it."""

from __future__ import annotations

import base64
import os
import shutil

import pytest

from manent.adapters.store.postgres import PostgresEventStore, ensure_postgres_log
from manent.app.system import RandomIds, SystemClock
from manent.domain.errors import StoreUnavailable
from manent.domain.records import EventContext
from tests.support.conversation import said
from tests.support.log import tree_of, whole_log
from tests.support.postgres import PostgresServer

MIB = 1024 * 1024
WAL_SEGMENT_BYTES = 16 * MIB
CONTEXT = EventContext(tenant="acme", actor="ann")


async def append_large(store: PostgresEventStore, number: int) -> int:
    """An event of about a MiB that does not compress; its position."""
    event = said("user", base64.b64encode(os.urandom(MIB)).decode())
    appended = await store.append(f"session-{number}", [event], expected_version=0, context=CONTEXT)
    return appended.position


async def append_until_refused(store: PostgresEventStore, acknowledged: list[int]) -> None:
    """Append and note where each landed; raises what ends it, after 40 at the latest nothing."""
    for number in range(40):
        position = await append_large(store, number)
        acknowledged.append(position)


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="only Linux can limit another process's files")
async def test_a_full_disk_refuses_appends_and_keeps_the_log(own_postgres: PostgresServer) -> None:
    """The refusal names the cause; nothing acknowledged is lost, there is no gap, and with room appends go on."""
    with own_postgres.database() as url:
        await ensure_postgres_log(url, RandomIds())
        store = PostgresEventStore(url, clock=SystemClock(), ids=RandomIds())
        acknowledged: list[int] = []
        with own_postgres.file_size_limit(WAL_SEGMENT_BYTES), pytest.raises(StoreUnavailable, match="could not extend"):
            await append_until_refused(store, acknowledged)
        assert 1 < len(acknowledged) < 40
        acknowledged.append(await append_large(store, 100))
        entries = await whole_log(store)
        assert [entry.header.position for entry in entries] == acknowledged == list(range(1, len(entries) + 1))
        assert await store.head() == tree_of(entries)
        await store.aclose()
