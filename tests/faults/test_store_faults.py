"""A database that is locked, full, damaged or not there: clear errors, nothing half recorded."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from manent.adapters.store import sqlite as sqlite_store
from manent.adapters.store import sqlite_writer
from manent.adapters.store.migrate import MigrationError, upgrade
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.domain.errors import LogCorrupt, StoreUnavailable
from manent.domain.records import Appended, EventContext, EventFilter
from tests.support.conversation import said, started
from tests.support.database import empty_database
from tests.support.fakes import CountingIds, FakeClock

CONTEXT = EventContext(tenant="acme", actor="ann")


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[SQLiteEventStore, None]:
    """A store that gives up on a lock quickly, so that the test is quick."""
    monkeypatch.setattr(sqlite_store, "LOCK_WAIT_S", 0.2)
    path, ids = tmp_path / "manent.db", CountingIds()
    empty_database(path)
    await ensure_log(path, ids)
    made = SQLiteEventStore(path, clock=FakeClock(), ids=ids)
    yield made
    await made.aclose()


async def test_a_lock_held_by_another_process_is_an_error_that_passes(store: SQLiteEventStore, tmp_path: Path) -> None:
    """While another program holds the write lock appends are refused with a wait; reading goes on."""
    other = sqlite3.connect(tmp_path / "manent.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked") as caught:
        await store.append("session-s", [started()], expected_version=0, context=CONTEXT)
    assert caught.value.retry_after_s == 1.0
    assert await store.query(EventFilter()) == []
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.ping()
    other.execute("ROLLBACK")
    other.close()
    appended = await store.append("session-s", [started()], expected_version=0, context=CONTEXT)
    assert appended.position == 1
    await store.ping()


async def test_a_full_disk_refuses_the_append_and_keeps_the_log(
    store: SQLiteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append that does not fit leaves no trace, and the next that fits goes on without a gap."""
    # SQLite's own limit of pages gives the very error that a full disk gives.
    monkeypatch.setattr(sqlite_writer, "PRAGMAS", (*sqlite_writer.PRAGMAS, "max_page_count=60"))
    await store.append("session-s", [started()], expected_version=0, context=CONTEXT)
    with pytest.raises(StoreUnavailable, match="full"):
        await store.append("session-s", [said("user", "x" * 1_000_000)], expected_version=1, context=CONTEXT)
    appended = await store.append("session-s", [said("user", "small")], expected_version=1, context=CONTEXT)
    assert (appended.position, appended.stream_version) == (2, 2)
    assert [entry.header.position for entry in await store.query(EventFilter())] == [1, 2]


async def test_a_poisoned_append_in_a_full_batch_fails_alone(store: SQLiteEventStore) -> None:
    """What has no UTF-8 refuses itself, and nobody beside it."""
    streams = [f"session-{number}" for number in range(50)]
    streams.insert(25, "session-\ud800")
    appends = [store.append(stream, [started()], expected_version=0, context=CONTEXT) for stream in streams]
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert isinstance(results.pop(25), StoreUnavailable)
    assert sorted(one.position for one in results if isinstance(one, Appended)) == list(range(1, 51))


async def test_a_damaged_payload_is_named(store: SQLiteEventStore, tmp_path: Path) -> None:
    """Folding over a payload that is no JSON says so; the log itself can still be listed."""
    await store.append("session-s", [started()], expected_version=0, context=CONTEXT)
    damage(tmp_path, "UPDATE event_payloads SET payload = x'7b22'")
    with pytest.raises(LogCorrupt, match="SessionStarted"):
        await store.read_stream("acme", "session-s")
    assert len(await store.query(EventFilter())) == 1


async def test_an_erased_payload_reads_as_erased(store: SQLiteEventStore, tmp_path: Path) -> None:
    """A payload that was destroyed leaves its header, and reading goes on."""
    await store.append("session-s", [started(), said("user", "x")], expected_version=0, context=CONTEXT)
    damage(tmp_path, "DELETE FROM event_payloads WHERE position = 2")
    recorded = await store.read_stream("acme", "session-s")
    assert type(recorded[1].event).__name__ == "ErasedEvent"
    assert (await store.query(EventFilter()))[1].payload is None


def damage(folder: Path, statement: str) -> None:
    """Change the database behind the store's back, past the triggers that are in the way."""
    with sqlite3.connect(folder / "manent.db") as connection:
        connection.execute("DROP TRIGGER event_payloads_no_update")
        connection.execute(statement)
    connection.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Something else at the database's place is left alone, and named."""
    path = tmp_path / "manent.db"
    path.write_text("not a database, and longer than a header " * 40)
    with pytest.raises(MigrationError, match="not a database"):
        upgrade(path)
    assert path.read_text().startswith("not a database")


def test_a_database_of_a_newer_manent_is_refused(tmp_path: Path) -> None:
    """An older Manent does not touch what it does not know."""
    empty_database(tmp_path / "manent.db")
    damage(tmp_path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(MigrationError, match="newer"):
        upgrade(tmp_path / "manent.db")


def test_a_locked_database_cannot_be_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that cannot get the lock says what to look for."""
    monkeypatch.setattr("manent.adapters.store.migrate.BUSY_WAIT_S", 0.2)
    other = sqlite3.connect(tmp_path / "manent.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(MigrationError, match="holds a lock"):
        upgrade(tmp_path / "manent.db")
    other.close()


def test_upgrading_twice_changes_nothing(tmp_path: Path) -> None:
    """A second start finds the database as it should be."""
    upgrade(tmp_path / "manent.db")
    upgrade(tmp_path / "manent.db")
