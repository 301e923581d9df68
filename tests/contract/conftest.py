"""Every event store, one after the other, for the suites that all of them must pass."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from manent.adapters.store.memory import MemoryEventStore
from manent.adapters.store.postgres import PostgresEventStore, ensure_postgres_log
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.domain.ports import EventStore
from tests.support.database import empty_database
from tests.support.fakes import CountingIds, FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """The store's clock."""
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncGenerator[EventStore, None]:
    """One of the stores, empty."""
    ids = CountingIds()
    if request.param == "memory":
        made: MemoryEventStore | SQLiteEventStore | PostgresEventStore = MemoryEventStore(clock=clock, ids=ids)
    elif request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        await ensure_postgres_log(url, ids)
        made = PostgresEventStore(url, clock=clock, ids=ids)
    else:
        empty_database(tmp_path / "manent.db")
        await ensure_log(tmp_path / "manent.db", ids)
        made = SQLiteEventStore(tmp_path / "manent.db", clock=clock, ids=ids)
    yield made
    await made.aclose()
