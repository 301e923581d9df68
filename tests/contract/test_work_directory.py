"""What every directory of files and batches promises, on every store, and every place for the bytes of files."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy import URL

from manent.adapters.store.database import open_node, open_subscription_engine
from manent.adapters.store.file_content import SQLFileContent
from manent.adapters.store.memory import MemoryEventStore
from manent.adapters.store.memory_work import MemoryFileContent
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.subscriptions import MemorySubscriptionStore, SQLSubscriptionStore
from manent.domain.access import ModelAccess
from manent.domain.batch_events import (
    BatchCreated,
    BatchEnded,
    BatchGrant,
    BatchRefused,
    FileAdded,
    FileDeleted,
    batch_stream,
    file_stream,
)
from manent.domain.errors import LeaseLost, VersionConflict
from manent.domain.events import DomainEvent
from manent.domain.files import FileContent, FileFilter
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from manent.domain.subscriptions import Lease, SubscriptionStore
from tests.support.fakes import CountingIds, FakeClock
from tests.support.rebuilt import check_rebuilt

ANN = FileFilter(tenant="acme", owner="ann")
NOW_US = 1_700_000_000_000_000


async def append(store: EventStore, stream: str, event: DomainEvent, *, version: int = 0) -> None:
    """Append behind ``version``."""
    await store.append(stream, [event], expected_version=version, context=EventContext(tenant="acme", actor="ann"))


async def add(
    store: EventStore, name: str, *, purpose: str = "batch", owner: str = "ann", expires_at_us: int | None = None
) -> None:
    """A file of ten bytes."""
    added = FileAdded(
        file_id=name,
        owner=owner,
        filename=f"{name}.jsonl",
        purpose=purpose,
        size_bytes=10,
        sha256="00",
        chunks=1,
        expires_at_us=expires_at_us,
        added_at_us=NOW_US,
    )
    await append(store, file_stream(name), added)


async def delete(store: EventStore, name: str) -> None:
    """The file is no more."""
    gone = FileDeleted(file_id=name, reason="deleted", deleted_by="ann", deleted_at_us=NOW_US)
    await append(store, file_stream(name), gone, version=1)


async def begin(store: EventStore, name: str, *, owner: str = "ann", at_us: int = NOW_US) -> None:
    """A batch."""
    created = BatchCreated(
        batch_id=name,
        owner=owner,
        grant=BatchGrant(credential_id=None, scopes=(), models=ModelAccess(), limits=None),
        input_file_id="a",
        output_file_id="o",
        error_file_id="e",
        endpoint="/v1/completions",
        completion_window="24h",
        metadata={},
        output_expires_after_s=None,
        expires_at_us=NOW_US,
        created_at_us=at_us,
    )
    await append(store, batch_stream(name), created)


async def end(store: EventStore, name: str) -> None:
    """The batch is over."""
    ended = BatchEnded(
        batch_id=name, status="completed", output_file_id=None, error_file_id=None, mistakes=(), ended_at_us=1
    )
    await append(store, batch_stream(name), ended, version=1)


async def filled(store: EventStore) -> None:
    """Files that are there, deleted, another's, with an end; batches that are open and over."""
    await add(store, "a")
    await add(store, "b", purpose="batch_output", expires_at_us=NOW_US + 5)
    await add(store, "gone", expires_at_us=NOW_US + 1)
    await add(store, "bobs", owner="bob", expires_at_us=NOW_US + 3)
    await add(store, "c")
    await delete(store, "gone")
    for name in ("refused", "over", "open", "newest"):
        await begin(store, name)
    await begin(store, "bobs-batch", owner="bob")
    await append(
        store, batch_stream("refused"), BatchRefused(batch_id="refused", mistakes=(), refused_at_us=1), version=1
    )
    await end(store, "over")


async def names(
    store: EventStore, wanted: FileFilter = ANN, *, after: int | None = None, limit: int = 9, descending: bool = False
) -> list[str]:
    """The ids of a page of files."""
    page = await store.work.files(wanted, after_position=after, limit=limit, descending=descending)
    return [kept.added.file_id for kept in page]


async def check(store: EventStore) -> None:
    """What ``filled`` leaves to be found."""
    work = store.work
    assert await names(store) == ["a", "b", "c"]
    assert await names(store, descending=True, limit=2) == ["c", "b"]
    assert await names(store, FileFilter(tenant="acme", owner="ann", purpose="batch")) == ["a", "c"]
    assert await names(store, FileFilter(tenant="other", owner="ann")) == []
    for at_us, lasting in ((NOW_US + 4, ["a", "b"]), (NOW_US + 5, ["a", "c"])):
        assert await names(store, FileFilter(tenant="acme", owner="ann", at_us=at_us), limit=2) == lasting
    place = await work.place("acme", "ann", "gone")
    assert await names(store, after=place) == ["c"]
    assert await names(store, after=place, descending=True) == ["b", "a"]
    assert await work.place("acme", "ann", "bobs") is await work.place("acme", "bob", "open") is None
    found = await work.file("acme", "b")
    assert found is not None
    assert (found.added.filename, found.tenant, found.added.expires_at_us) == ("b.jsonl", "acme", NOW_US + 5)
    assert await work.file("acme", "gone") is await work.file("other", "a") is None
    assert await work.usage("acme", "ann") == (3, 30)
    assert await work.usage("acme", "nobody") == (0, 0)
    due = await work.due_files(now_us=NOW_US + 5, limit=9)
    assert [kept.added.file_id for kept in due] == ["bobs", "b"]
    assert (
        len(await work.due_files(now_us=NOW_US + 4, limit=9)) == len(await work.due_files(now_us=2**60, limit=1)) == 1
    )
    batches = await work.batches("acme", "ann", after_position=None, limit=9, descending=True)
    assert [batch_id for _, batch_id in batches] == ["newest", "open", "over", "refused"]
    page = await work.batches("acme", "ann", after_position=batches[2][0], limit=1, descending=False)
    assert page == [batches[1]]
    assert await work.place("acme", "ann", "over") == batches[2][0]
    assert [batch_id for *_, batch_id in await work.open_batches(limit=9)] == ["open", "newest", "bobs-batch"]
    assert await work.open_batches(limit=1) == [("acme", "ann", "open")]
    assert await work.count_open("acme", "ann") == 2


async def test_what_is_there_and_by_what_it_is_found(store: EventStore) -> None:
    """By owner and purpose, in one order, behind what was deleted as well; of all tenants what is due or open."""
    await filled(store)
    await check(store)


async def test_the_tables_are_made_again_from_the_log(database: Path | URL) -> None:
    """What a rebuild leaves, over full tables, is what the commits left."""
    await check_rebuilt(database, filled, check)


Place = tuple[FileContent, SubscriptionStore, EventStore, FakeClock]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Place, None]:
    """One of the places for bytes, with the leases and the log beside it."""
    clock, ids = FakeClock(), CountingIds()
    if request.param == "memory":
        kept, leases = MemoryEventStore(clock=clock, ids=ids), MemorySubscriptionStore(clock=clock)
        yield MemoryFileContent(kept.work, now_us=clock.now_us, holds=leases.holds), leases, kept, clock
        return
    url: Path | URL = tmp_path / "manent.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    else:
        upgrade(tmp_path / "manent.db")
    store, engine = await open_node(url, clock=clock, ids=ids), open_subscription_engine(url)
    yield SQLFileContent(engine, store.work, clock=clock), SQLSubscriptionStore(engine, clock=clock), store, clock
    await engine.dispose()
    await store.aclose()


async def test_pieces_are_kept_once_and_read_as_they_are(place: Place) -> None:
    """A piece that is there is not written over; the pieces from a number on are destroyed together."""
    content = place[0]
    pieces = [bytes(range(256)) * 4096, b"", b"\x00"]
    for number, data in enumerate(pieces):
        await content.put("acme", "f", number, data)
    with pytest.raises(VersionConflict):
        await content.put("acme", "f", 1, b"other")
    assert [await content.read("acme", "f", number) for number in range(4)] == [*pieces, None]
    assert await content.read("other", "f", 0) is None
    await content.drop("acme", "f", first=1)
    assert [await content.read("acme", "f", number) is None for number in range(3)] == [False, True, True]


async def test_a_stale_worker_neither_writes_nor_destroys(place: Place) -> None:
    """What is done under a lease is done only as long as it is held."""
    content, leases, _, clock = place
    first = await leases.acquire("batch/1", owner="w1", ttl_s=10)
    assert isinstance(first, Lease)
    await content.put("acme", "f", 0, b"first", lease=first)
    clock.advance(11)
    second = await leases.acquire("batch/1", owner="w2", ttl_s=10)
    assert isinstance(second, Lease)
    with pytest.raises(LeaseLost):
        await content.put("acme", "f", 1, b"late", lease=first)
    await content.drop("acme", "f", lease=first)
    assert await content.read("acme", "f", 0) == b"first"
    await content.put("acme", "f", 1, b"second", lease=second)
    await content.drop("acme", "f", first=1, lease=second)
    assert [await content.read("acme", "f", number) for number in range(2)] == [b"first", None]


async def test_what_belongs_to_no_file_is_swept(place: Place) -> None:
    """Only what was begun before the time that is given, and no file that is there."""
    content, _, store, clock = place
    for name in ("kept", "gone", "orphan"):
        await content.put("acme", name, 0, b"x")
        await content.put("acme", name, 1, b"y")
    await add(store, "kept")
    await add(store, "gone")
    await delete(store, "gone")
    assert await content.sweep(before_us=clock.now_us()) == 0
    clock.advance(1)
    await content.put("acme", "new", 0, b"x")
    assert await content.sweep(before_us=clock.now_us()) == 2
    left = [name for name in ("kept", "gone", "orphan", "new") if await content.read("acme", name, 0)]
    assert left == ["kept", "new"]


async def test_what_may_be_an_open_batchs_is_not_swept(place: Place) -> None:
    """The server was off for longer than pieces last: the answers that its batches have stay until they end."""
    content, _, store, clock = place
    await begin(store, "old", at_us=clock.now_us())
    await content.put("acme", "o", 0, b"x")
    await content.put("other", "o", 0, b"x")
    clock.advance(1)
    await begin(store, "new", at_us=clock.now_us())
    before_us = clock.now_us()
    assert await content.sweep(before_us=before_us) == 1
    assert await content.read("acme", "o", 0) == b"x"
    await end(store, "old")
    assert await content.sweep(before_us=before_us) == 1
