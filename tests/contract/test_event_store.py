"""What every event store promises, run against each of them."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import msgspec
import pytest

from manent.adapters.store.codec import encode_event, header_bytes
from manent.domain.errors import EventTooLarge, IdempotencyConflict, VersionConflict
from manent.domain.events import DomainEvent, UnknownEvent
from manent.domain.merkle import Frontier, leaf_hash
from manent.domain.ports import EventStore
from manent.domain.records import EventContext, EventFilter, IdempotencyKey, OpenCompletion
from tests.support.conversation import cancelled, failed, generated, requested, said, started
from tests.support.fakes import FakeClock

ANN = EventContext(tenant="acme", actor="ann", request_id="r1", correlation_id="k1", causation_id="c0")


async def test_what_was_appended_is_read_back(store: EventStore) -> None:
    """Events come back equal, in order, with their places and their context in the header."""
    events: list[DomainEvent] = [started(), said("user", "grüß dich 🙂"), requested()]
    appended = await store.append("session-s", events, expected_version=0, context=ANN)
    assert (appended.position, appended.stream_version) == (3, 3)
    recorded = await store.read_stream("acme", "session-s")
    assert [record.event for record in recorded] == events
    header = recorded[1].header
    assert (header.position, header.stream_version, header.type) == (2, 2, "MessageAppended")
    assert (header.tenant, header.actor, header.request_id) == ("acme", "ann", "r1")
    assert (header.correlation_id, header.causation_id) == ("k1", "c0")


@pytest.mark.parametrize("event", [generated(), failed(), cancelled()])
async def test_every_ending_is_read_back(store: EventStore, event: DomainEvent) -> None:
    """Terminal events keep every field."""
    await store.append("session-s", [requested(), event], expected_version=0, context=ANN)
    assert (await store.read_stream("acme", "session-s"))[1].event == event


async def test_an_append_at_another_version_is_refused_whole(store: EventStore) -> None:
    """Optimistic concurrency: a stream that moved on takes nothing, and no position is used up."""
    await store.append("session-s", [started()], expected_version=0, context=ANN)
    for wrong in (0, 2):
        with pytest.raises(VersionConflict, match="is at version 1"):
            await store.append("session-s", [said("user", "x")], expected_version=wrong, context=ANN)
    appended = await store.append("session-s", [said("user", "y")], expected_version=1, context=ANN)
    assert (appended.position, appended.stream_version) == (2, 2)


async def test_one_of_many_racing_writers_wins_each_version(store: EventStore) -> None:
    """Eight writers at one version: one append stands, and positions have no gap."""
    racing = [store.append("session-s", [said("user", str(i))], expected_version=0, context=ANN) for i in range(8)]
    results = await asyncio.gather(*racing, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert sum(isinstance(result, VersionConflict) for result in results) == 7
    assert len(await store.query(EventFilter())) == 1


async def test_positions_have_no_gaps_under_concurrent_appends(store: EventStore) -> None:
    """Appends to many streams at once number the log 1, 2, 3 …"""
    await asyncio.gather(
        *(store.append(f"session-{i}", [started(), started()], expected_version=0, context=ANN) for i in range(20))
    )
    entries = await store.query(EventFilter(), limit=100)
    assert [entry.header.position for entry in entries] == list(range(1, 41))


async def test_a_cancelled_caller_does_not_undo_the_commit(store: EventStore) -> None:
    """Who stops waiting for an append may still find it done; it is never half done."""
    append = asyncio.create_task(
        store.append("session-s", [started(), said("user", "x")], expected_version=0, context=ANN)
    )
    await asyncio.sleep(0)
    append.cancel()
    with pytest.raises(asyncio.CancelledError):
        await append
    # The next append waits for its turn behind the cancelled one, so that its end is known.
    await store.append("session-other", [started()], expected_version=0, context=ANN)
    found = await store.read_stream("acme", "session-s")
    assert len(found) in {0, 2}


async def test_streams_are_named_within_their_tenant(store: EventStore) -> None:
    """The same stream id in two tenants is two streams."""
    other = EventContext(tenant="rival", actor="eve")
    await store.append("session-s", [started()], expected_version=0, context=ANN)
    await store.append("session-s", [started(), started()], expected_version=0, context=other)
    assert len(await store.read_stream("acme", "session-s")) == 1
    assert len(await store.read_stream("rival", "session-s")) == 2
    assert await store.read_stream("nobody", "session-s") == []


async def test_streams_are_read_in_pages_and_up_to_a_version(store: EventStore) -> None:
    """after_version and limit page; max_version reads the past."""
    events = [said("user", str(i)) for i in range(7)]
    await store.append("session-s", events, expected_version=0, context=ANN)
    page = await store.read_stream("acme", "session-s", after_version=2, limit=3)
    assert [record.header.stream_version for record in page] == [3, 4, 5]
    past = await store.read_stream("acme", "session-s", max_version=2)
    assert [record.header.stream_version for record in past] == [1, 2]


async def test_the_log_is_queried_by_filters_and_keyset_pages(store: EventStore) -> None:
    """Every filter narrows, all of them together, and pages follow positions."""
    await store.append("session-a", [started(), said("user", "1")], expected_version=0, context=ANN)
    await store.append("session-b", [started(), said("user", "2")], expected_version=0, context=ANN)
    await store.append("session-b", [started()], expected_version=0, context=EventContext(tenant="rival", actor="eve"))

    async def positions(event_filter: EventFilter, after: int = 0, limit: int = 100) -> list[int]:
        entries = await store.query(event_filter, after_position=after, limit=limit)
        return [entry.header.position for entry in entries]

    assert await positions(EventFilter()) == [1, 2, 3, 4, 5]
    assert await positions(EventFilter(tenant="acme")) == [1, 2, 3, 4]
    assert await positions(EventFilter(type="SessionStarted")) == [1, 3, 5]
    assert await positions(EventFilter(tenant="acme", stream_id="session-b", type="SessionStarted")) == [3]
    assert await positions(EventFilter(min_position=2, max_position=4)) == [2, 3, 4]
    assert await positions(EventFilter(), after=2, limit=2) == [3, 4]
    assert await positions(EventFilter(min_position=2), after=3) == [4, 5]
    assert await positions(EventFilter(), after=5) == []


async def test_a_payload_matches_its_digest(store: EventStore) -> None:
    """payload_digest is SHA-256 of salt and payload bytes, so a verifier needs nothing else."""
    await store.append("session-s", [said("user", "x")], expected_version=0, context=ANN)
    (entry,) = await store.query(EventFilter())
    assert entry.payload is not None
    assert entry.salt is not None
    assert len(entry.salt) == 32
    assert hashlib.sha256(entry.salt + entry.payload).hexdigest() == entry.header.payload_digest
    assert msgspec.json.decode(entry.payload)["message"]["content"][0]["text"] == "x"


async def test_open_completions_are_known_until_they_are_closed(store: EventStore) -> None:
    """What was requested and has no terminal event is what start-up must close."""
    await store.append("session-s", [started(), requested("c1")], expected_version=0, context=ANN)
    await store.append("completion-c2", [requested("c2")], expected_version=0, context=ANN)
    found = await store.open_completions()
    assert found[0] == OpenCompletion(tenant="acme", stream_id="session-s", completion_id="c1")
    assert [completion.completion_id for completion in found] == ["c1", "c2"]
    await store.append("session-s", [failed("c1")], expected_version=2, context=ANN)
    assert [completion.completion_id for completion in await store.open_completions()] == ["c2"]


async def test_an_event_beyond_the_bound_is_refused(store: EventStore) -> None:
    """A payload of more than 16 MiB leaves the log untouched."""
    with pytest.raises(EventTooLarge):
        await store.append("session-s", [said("user", "x" * 17_000_000)], expected_version=0, context=ANN)
    assert await store.query(EventFilter()) == []


async def test_events_of_a_newer_manent_are_kept(store: EventStore) -> None:
    """An unknown type is appended and read without loss, as a restored or forwarded log may hold it."""
    event = UnknownEvent(type="FromTheFuture", schema_version=3, payload={"a": [1, {"b": None}]})
    await store.append("session-s", [event], expected_version=0, context=ANN)
    assert (await store.read_stream("acme", "session-s"))[0].event == event
    assert encode_event(event).type == "FromTheFuture"


async def test_the_store_answers_when_asked(store: EventStore) -> None:
    """ping returns where the database works."""
    await store.ping()


KEY = IdempotencyKey(scope="acme/ann", key="k1", request_digest="d1")


async def test_a_repeated_key_lands_where_the_first_did(store: EventStore) -> None:
    """The same key and request writes nothing more, whatever the stream's version has become."""
    first = await store.append("session-s", [started()], expected_version=0, context=ANN, idempotency=KEY)
    await store.append("session-s", [said("user", "x")], expected_version=1, context=ANN)
    again = await store.append("session-s", [started()], expected_version=0, context=ANN, idempotency=KEY)
    assert (first.repeated, again) == (False, first.as_repeated())
    assert len(await store.query(EventFilter())) == 2


async def test_a_key_with_another_request_is_a_conflict(store: EventStore) -> None:
    """A key stands for one request; somebody else's equal key is another key."""
    await store.append("session-s", [started()], expected_version=0, context=ANN, idempotency=KEY)
    other = IdempotencyKey(scope="acme/ann", key="k1", request_digest="d2")
    with pytest.raises(IdempotencyConflict, match="k1"):
        await store.append("session-t", [started()], expected_version=0, context=ANN, idempotency=other)
    bobs = IdempotencyKey(scope="acme/bob", key="k1", request_digest="d2")
    await store.append("session-t", [started()], expected_version=0, context=ANN, idempotency=bobs)
    assert len(await store.query(EventFilter())) == 2


async def test_a_thousand_equal_keys_at_once_are_one_event(store: EventStore) -> None:
    """However many retries race, one of them writes, and all are told the same place."""
    landed = await asyncio.gather(
        *(store.append("session-s", [started()], expected_version=0, context=ANN, idempotency=KEY) for _ in range(1000))
    )
    assert {(appended.position, appended.stream_version) for appended in landed} == {(1, 1)}
    assert sum(not appended.repeated for appended in landed) == 1
    assert len(await store.query(EventFilter())) == 1


async def test_times_never_run_backwards(store: EventStore, clock: FakeClock) -> None:
    """A clock that is set back an hour does not disorder the log."""
    await store.append("session-s", [started()], expected_version=0, context=ANN)
    clock.advance(-3600)
    await store.append("session-s", [started()], expected_version=1, context=ANN)
    clock.advance(7200)
    await store.append("session-s", [started()], expected_version=2, context=ANN)
    times = [entry.header.recorded_at_us for entry in await store.query(EventFilter())]
    assert times == sorted(times)
    assert times[2] > times[1]


async def test_the_head_is_the_tree_of_all_headers(store: EventStore) -> None:
    """The root that the store keeps is RFC 6962's over the canonical bytes of every header, in order."""
    for number in range(40):
        events = [started() for _ in range(number % 9 + 1)]
        await store.append(f"session-{number}", events, expected_version=0, context=ANN)
    entries = await store.query(EventFilter(), limit=1000)
    head = await store.head()
    leaves = [leaf_hash(header_bytes(entry.header)) for entry in entries]
    assert head.size == len(entries) > 150
    assert head == Frontier().extended(leaves)


FILTERS = {
    "actor": (EventFilter(actor="bob"), [3, 4]),
    "model": (EventFilter(model_id="m"), [2, 4, 5]),
    "request": (EventFilter(request_id="r2"), [3, 4]),
    "correlation": (EventFilter(correlation_id="k1"), [1, 2, 5]),
    "since": (EventFilter(since_us=1_700_000_001_000_000), [3, 4, 5]),
    "until": (EventFilter(until_us=1_700_000_001_000_000), [1, 2, 3, 4]),
    "since a time between": (EventFilter(since_us=1_700_000_001_000_001), [5]),
    "until a time before": (EventFilter(until_us=1_600_000_000_000_000), []),
    "since a time to come": (EventFilter(since_us=1_800_000_000_000_000), []),
    "actor and type": (EventFilter(actor="bob", type="CompletionRequested"), [4]),
    "model and actor": (EventFilter(model_id="m", actor="ann"), [2, 5]),
    "model and request": (EventFilter(model_id="m", request_id="r2"), [4]),
    "stream and model": (EventFilter(stream_id="session-b", model_id="m"), [4]),
    "stream and times": (
        EventFilter(stream_id="session-a", since_us=1_700_000_001_000_000, until_us=1_700_000_002_000_000),
        [5],
    ),
    "positions and times": (EventFilter(min_position=2, max_position=4, since_us=1_700_000_001_000_000), [3, 4]),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("tenant", [None, "acme", "rival"])
async def test_every_filter_narrows_and_pages(
    store: EventStore, clock: FakeClock, name: str, tenant: str | None
) -> None:
    """Each filter, alone and beside another, finds what it names, in both orders, whatever the size of the pages."""
    bob = EventContext(tenant="acme", actor="bob", request_id="r2", correlation_id="k2")
    await store.append("session-a", [started(), requested("c1")], expected_version=0, context=ANN)
    clock.advance(1)
    await store.append("session-b", [started(), requested("c2")], expected_version=0, context=bob)
    clock.advance(1)
    await store.append("session-a", [generated(completion_id="c1")], expected_version=2, context=ANN)
    event_filter, expected = FILTERS[name]
    wanted = replace(event_filter, tenant=tenant)
    for limit in (1, 2, 100):
        found: list[int] = []
        while page := await store.query(wanted, after_position=found[-1] if found else 0, limit=limit):
            assert len(page) <= limit
            found += [entry.header.position for entry in page]
        assert found == ([] if tenant == "rival" else expected)
        last = await store.query(wanted, limit=limit, newest_first=True)
        assert [entry.header.position for entry in last] == found[::-1][:limit]
        above = await store.query(wanted, after_position=2, limit=limit, newest_first=True)
        assert [entry.header.position for entry in above] == [one for one in found[::-1] if one > 2][:limit]


async def test_observers_hear_of_every_commit(store: EventStore) -> None:
    """Who follows the log is told how far it has come, once for a commit and never for a refusal."""
    heard: list[int | None] = []
    store.observe(heard.append)
    await store.append("session-s", [started(), said("user", "x")], expected_version=0, context=ANN)
    with pytest.raises(VersionConflict):
        await store.append("session-s", [started()], expected_version=0, context=ANN)
    await store.append("session-s", [said("user", "y")], expected_version=2, context=ANN)
    assert heard == [2, 3]


async def test_events_alone_are_those_of_the_records(store: EventStore) -> None:
    """What a fold reads is what ``read_stream`` reads, page by page, without the headers."""
    events: list[DomainEvent] = [started(), said("user", "one"), said("assistant", "two"), said("user", "three")]
    await store.append("session-s", events, expected_version=0, context=ANN)
    records = await store.read_stream("acme", "session-s")
    found = await store.read_events("acme", "session-s")
    assert [tuple(step) for step in found] == [
        (record.header.stream_version, record.header.event_id, record.event) for record in records
    ]
    page = await store.read_events("acme", "session-s", after_version=1, max_version=3, limit=1)
    assert list(page) == [found[1]]
    assert list(await store.read_events("acme", "session-s", after_version=1, max_version=3)) == list(found[1:3])
    assert list(await store.read_events("rival", "session-s")) == []
    appended = await store.append("session-s", [said("user", "four")], expected_version=4, context=ANN)
    assert appended.last_event_id == (await store.read_events("acme", "session-s", after_version=4))[0].event_id
