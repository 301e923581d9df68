"""What a writer remembers of the log is never believed once it may be wrong, on both databases."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from manent.adapters.store import known_log
from manent.adapters.store.postgres import PostgresEventStore, ensure_postgres_log
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.system import RandomIds
from manent.domain.errors import StoreUnavailable, VersionConflict
from manent.domain.records import EventContext
from tests.support.conversation import started
from tests.support.database import empty_database
from tests.support.fakes import FakeClock
from tests.support.log import tree_of, whole_log

CONTEXT = EventContext(tenant="acme", actor="ann")
Store = SQLiteEventStore | PostgresEventStore


@pytest.fixture(params=["sqlite", "postgres"])
async def another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Callable[[], Store], None]:
    """Makes stores over one log, each with a writer of its own, as two processes have."""
    ids = RandomIds()
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        await ensure_postgres_log(url, ids)
    else:
        empty_database(tmp_path / "manent.db")
        await ensure_log(tmp_path / "manent.db", ids)
    async with AsyncExitStack() as opened:

        def make() -> Store:
            store: Store = (
                PostgresEventStore(url, clock=FakeClock(), ids=ids)
                if request.param == "postgres"
                else SQLiteEventStore(tmp_path / "manent.db", clock=FakeClock(), ids=ids)
            )
            opened.push_async_callback(store.aclose)
            return store

        yield make


async def append(store: Store, stream_id: str, version: int) -> int:
    """One event; its position."""
    return (await store.append(stream_id, [started()], expected_version=version, context=CONTEXT)).position


async def test_what_another_process_appended_is_seen(another: Callable[[], Store]) -> None:
    """Two writers take turns on one stream: each judges by what is there, and both grow the same tree."""
    first, second = another(), another()
    for version in range(0, 6, 2):
        assert await append(first, "session-s", version) == version + 1
        assert await append(second, "session-s", version + 1) == version + 2
        with pytest.raises(VersionConflict, match=f"at version {version + 2}"):
            await append(first, "session-s", version + 1)
    assert await first.head() == tree_of(await whole_log(second))


async def test_what_was_read_for_a_batch_that_wrote_nothing_is_not_believed_later(
    another: Callable[[], Store],
) -> None:
    """A version seen before another process appended is out of date, also where nothing was written at the time."""
    first, second = another(), another()
    await append(first, "session-s", 0)
    with pytest.raises(VersionConflict):
        await append(second, "session-s", 5)
    await append(first, "session-s", 1)
    with pytest.raises(VersionConflict, match="at version 2"):
        await append(second, "session-s", 1)
    assert await append(second, "session-s", 2) == 3


async def test_a_refused_append_leaves_nothing_to_remember(another: Callable[[], Store]) -> None:
    """What was judged in a transaction that did not commit did not happen; the next append fits in."""
    store = another()
    await append(store, "session-s", 0)
    with pytest.raises(StoreUnavailable):
        await append(store, "session-\ud800", 0)  # no UTF-8: no database takes it
    with pytest.raises(VersionConflict):
        await append(store, "session-s", 2)
    assert await append(store, "session-s", 1) == 2
    assert await store.head() == tree_of(await whole_log(store))


async def test_more_streams_than_are_remembered(another: Callable[[], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was forgotten is asked for again."""
    monkeypatch.setattr(known_log, "STREAMS_MAX", 3)
    store = another()
    for version in range(3):
        for number in range(8):
            await append(store, f"session-{number}", version)
    remembered, _ = store._committer._writer._known.versions([])  # type: ignore[attr-defined]  # both writers have one
    assert len(remembered) == 3
    with pytest.raises(VersionConflict):
        await append(store, "session-0", 2)
