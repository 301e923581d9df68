"""What every directory of sessions promises: pages by every filter, places that do not move, and who is due."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from manent.adapters.store import session_index, session_list
from manent.domain.events import (
    DomainEvent,
    SessionDeleted,
    SessionExpired,
    SessionMetadataChanged,
    SessionStarted,
    session_stream,
)
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from manent.domain.replay_events import Fork
from manent.domain.session import SessionStatus
from manent.domain.session_limits import METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX
from manent.domain.session_list import SessionFilter
from tests.support.conversation import said
from tests.support.fakes import FakeClock

ACME = SessionFilter(tenant="acme")


async def start(
    store: EventStore,
    clock: FakeClock,
    session_id: str,
    *,
    owner: str = "ann",
    tenant: str = "acme",
    **others: Any,
) -> int:
    """Start a session a second after the last; its position."""
    clock.advance(1)
    members: dict[str, Any] = {"metadata": {}, "ttl_s": None, "parent": None, **others}
    started = SessionStarted(session_id=session_id, tenant=tenant, owner=owner, started_at_us=clock.now_us(), **members)
    return await append(store, session_id, started, tenant=tenant, version=0)


async def append(store: EventStore, session_id: str, event: DomainEvent, *, version: int, tenant: str = "acme") -> int:
    """Append one event behind ``version``; its position."""
    context = EventContext(tenant=tenant, actor="ann")
    appended = await store.append(session_stream(session_id), [event], expected_version=version, context=context)
    return appended.position


def changed(session_id: str, clock: FakeClock, *, ttl_s: int | None = None, **metadata: str) -> SessionMetadataChanged:
    """Metadata and time to live are these now."""
    return SessionMetadataChanged(
        session_id=session_id, metadata=metadata, ttl_s=ttl_s, changed_by="ann", changed_at_us=clock.now_us()
    )


def deleted(session_id: str) -> SessionDeleted:
    """The session is deleted."""
    return SessionDeleted(session_id=session_id, deleted_by="ann", deleted_at_us=1)


def expired(session_id: str) -> SessionExpired:
    """The session expired."""
    return SessionExpired(session_id=session_id, ttl_s=5, last_used_at_us=1, expired_at_us=2)


async def ids_of(
    store: EventStore, wanted: SessionFilter, *, after: int | None = None, limit: int = 100, descending: bool = False
) -> list[str]:
    """The ids of a page."""
    page = await store.directory.page(wanted, after_position=after, limit=limit, descending=descending)
    return [session.session_id for session in page]


async def test_a_listed_session_says_everything_but_its_conversation(store: EventStore, clock: FakeClock) -> None:
    """Owner, metadata, time to live, parent, times, and the version of its last event."""
    parent = Fork(session_id="old", version=3)
    position = await start(store, clock, "s", owner="bob", metadata={"b": "2", "a": "ü🙂"}, ttl_s=7, parent=parent)
    started_at_us = clock.now_us()
    clock.advance(3)
    await append(store, "s", said("user", "hi"), version=1)
    (listed,) = await store.directory.page(ACME, after_position=None, limit=5, descending=True)
    assert (listed.session_id, listed.tenant, listed.owner, listed.position) == ("s", "acme", "bob", position)
    assert (listed.metadata, listed.ttl_s, listed.parent) == ({"a": "ü🙂", "b": "2"}, 7, parent)
    assert (listed.version, listed.started_at_us, listed.changed_at_us) == (2, started_at_us, clock.now_us())
    assert listed.expires_at_us == clock.now_us() + 7_000_000
    assert await store.directory.find("acme", "s") == listed
    assert await store.directory.find("acme", "t") is None
    assert await store.directory.find("rival", "s") is None


async def test_pages_go_both_ways_by_place(store: EventStore, clock: FakeClock) -> None:
    """Oldest or newest first, behind any place, with a bound; another tenant's sessions are on no page."""
    await start(store, clock, "s1", tenant="rival")
    places = [await start(store, clock, f"s{number}") for number in range(5)]
    assert await ids_of(store, ACME) == ["s0", "s1", "s2", "s3", "s4"]
    assert await ids_of(store, ACME, descending=True, limit=2) == ["s4", "s3"]
    assert await ids_of(store, ACME, after=places[1], limit=2) == ["s2", "s3"]
    assert await ids_of(store, ACME, after=places[3], descending=True, limit=2) == ["s2", "s1"]
    assert await ids_of(store, ACME, after=places[4]) == []
    assert await ids_of(store, replace(ACME, tenant="rival")) == ["s1"]


async def test_every_filter_narrows_and_all_of_them_together(store: EventStore, clock: FakeClock) -> None:
    """By owner, by one pair and several, by time; a key that is the other's value is another pair."""
    await start(store, clock, "a", metadata={"app": "x", "env": "dev"})
    middle_us = clock.now_us() + 1
    await start(store, clock, "b", metadata={"app": "x", "env": "prod"})
    last_us = clock.now_us()
    await start(store, clock, "c", owner="bob", metadata={"app": "x", "x": "app", "env": "prod"})
    assert await ids_of(store, replace(ACME, owner="bob")) == ["c"]
    assert await ids_of(store, replace(ACME, metadata={"app": "x"})) == ["a", "b", "c"]
    assert await ids_of(store, replace(ACME, metadata={"app": "x", "env": "prod"}), descending=True) == ["c", "b"]
    assert await ids_of(store, replace(ACME, metadata={"app": "x", "env": "prod"}, owner="ann")) == ["b"]
    assert await ids_of(store, replace(ACME, metadata={"x": "app"})) == ["c"]
    assert await ids_of(store, replace(ACME, metadata={"app": "y"})) == []
    assert await ids_of(store, replace(ACME, since_us=middle_us)) == ["b", "c"]
    assert await ids_of(store, replace(ACME, before_us=middle_us)) == ["a"]
    assert await ids_of(store, replace(ACME, since_us=last_us, before_us=last_us)) == []
    assert await ids_of(store, replace(ACME, since_us=last_us, before_us=last_us + 1)) == ["b"]
    assert await ids_of(store, replace(ACME, since_us=clock.now_us() + 1)) == []
    everything = replace(ACME, owner="ann", metadata={"env": "prod"}, since_us=middle_us, before_us=last_us + 1)
    assert await ids_of(store, everything) == ["b"]


async def test_a_session_keeps_its_place_while_its_status_changes(store: EventStore, clock: FakeClock) -> None:
    """Changed metadata replaces the old; a closed session is found under its status, with its metadata."""
    place = await start(store, clock, "a", metadata={"k": "1"}, ttl_s=5)
    await start(store, clock, "b", metadata={"k": "1"})
    await start(store, clock, "c", metadata={"k": "1"})
    await append(store, "a", changed("a", clock, k="2", more="x"), version=1)
    assert await ids_of(store, replace(ACME, metadata={"k": "1"})) == ["b", "c"]
    (listed,) = await store.directory.page(
        replace(ACME, metadata={"more": "x"}), after_position=None, limit=9, descending=False
    )
    assert (listed.position, listed.metadata, listed.ttl_s, listed.version) == (place, {"k": "2", "more": "x"}, None, 2)
    await append(store, "b", expired("b"), version=1)
    await append(store, "c", deleted("c"), version=1)
    assert await ids_of(store, ACME) == ["a"]
    for status, session_id in ((SessionStatus.EXPIRED, "b"), (SessionStatus.DELETED, "c")):
        assert await ids_of(store, replace(ACME, status=status)) == [session_id]
        assert await ids_of(store, replace(ACME, status=status, metadata={"k": "1"}, owner="ann")) == [session_id]
        assert await ids_of(store, replace(ACME, status=status, metadata={"k": "2"})) == []
        closed = await store.directory.find("acme", session_id)
        assert closed is not None
        assert closed.expires_at_us == (expired("b").expired_at_us if status is SessionStatus.EXPIRED else None)


async def test_metadata_at_its_limits_is_found(store: EventStore, clock: FakeClock) -> None:
    """Sixteen pairs of the longest keys and values, four bytes a character: more than an index would take."""
    pairs = {
        f"{number:x}".rjust(METADATA_KEY_CHARS_MAX, "🙂"): f"{number:x}".rjust(METADATA_VALUE_CHARS_MAX, "🙃")
        for number in range(METADATA_PAIRS_MAX)
    }
    await start(store, clock, "s", owner="o" * 200, metadata=pairs)
    assert await ids_of(store, replace(ACME, metadata=pairs)) == ["s"]
    listed = await store.directory.find("acme", "s")
    assert listed is not None
    assert listed.metadata == pairs


async def test_pairs_with_the_same_digest_are_told_apart(
    store: EventStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds a collision of the index's digest makes a look-up longer, and no answer wrong."""
    for module in (session_index, session_list):
        monkeypatch.setattr(module, "pair_digest", lambda _key, _value: 1)
    await start(store, clock, "a", metadata={"k": "1"})
    await start(store, clock, "b", metadata={"k": "2", "l": "1"})
    assert await ids_of(store, replace(ACME, metadata={"k": "1"})) == ["a"]
    assert await ids_of(store, replace(ACME, metadata={"k": "2"})) == ["b"]
    assert await ids_of(store, replace(ACME, metadata={"l": "1"}, owner="ann")) == ["b"]
    assert await ids_of(store, replace(ACME, metadata={"l": "1", "k": "1"})) == []


async def test_the_due_are_told_in_their_order(store: EventStore, clock: FakeClock) -> None:
    """Who may expire, the earliest first, in pages; of all tenants, and with when each was used last."""
    await start(store, clock, "late", ttl_s=90)
    await start(store, clock, "soon", ttl_s=20, tenant="rival")
    await start(store, clock, "never")
    await start(store, clock, "other", ttl_s=20)
    await start(store, clock, "gone", ttl_s=10)
    await append(store, "gone", deleted("gone"), version=1)
    assert await store.directory.due(clock.now_us(), after=None, limit=9) == []
    clock.advance(5)
    await append(store, "other", said("user", "hi"), version=1)
    used_at_us = clock.now_us()
    now_us = clock.now_us() + 100_000_000
    soon, other, late = await store.directory.due(now_us, after=None, limit=9)
    assert [(due.tenant, due.session_id) for due in (soon, other, late)] == [
        ("rival", "soon"),
        ("acme", "other"),
        ("acme", "late"),
    ]
    assert (other.ttl_s, other.changed_at_us) == (20, used_at_us)
    assert await store.directory.due(now_us, after=None, limit=1) == [soon]
    assert await store.directory.due(now_us, after=soon, limit=1) == [other]
    assert await store.directory.due(now_us, after=late, limit=9) == []
    assert await store.directory.due(other.due_at_us, after=None, limit=9) == [soon, other]


async def test_a_postponed_session_is_looked_at_later(store: EventStore, clock: FakeClock) -> None:
    """It is due again at its new time; one whose time to live changed meanwhile keeps the new one."""
    await start(store, clock, "a", ttl_s=2)
    await start(store, clock, "b", ttl_s=2)
    clock.advance(5)
    a, b = await store.directory.due(clock.now_us(), after=None, limit=9)
    await append(store, "b", changed("b", clock, ttl_s=3), version=1)
    later_us = clock.now_us() + 50_000_000
    await store.directory.postpone([])
    await store.directory.postpone([(a, later_us), (b, later_us)])
    assert await store.directory.due(clock.now_us(), after=None, limit=9) == []
    due = await store.directory.due(later_us, after=None, limit=9)
    assert [(one.session_id, one.due_at_us) for one in due] == [
        ("b", clock.now_us() + 3_000_000),
        ("a", later_us),
    ]


@pytest.mark.parametrize("descending", [False, True])
async def test_no_session_is_skipped_or_seen_twice_while_others_come_and_go(
    store: EventStore, clock: FakeClock, *, descending: bool
) -> None:
    """Pages follow places: what stays open through a walk is on exactly one page."""
    staying = [f"s{number}" for number in range(12)]
    for session_id in staying:
        await start(store, clock, session_id)
        await start(store, clock, f"{session_id}-going")
    going = [f"{session_id}-going" for session_id in (staying if descending else staying[::-1])]
    seen: list[str] = []
    after = None
    while page := await store.directory.page(ACME, after_position=after, limit=3, descending=descending):
        seen += [session.session_id for session in page]
        after = page[-1].position
        if going:  # one that is still to come, and one that was seen
            for session_id in {going.pop(0), going.pop() if going else ""} - {""}:
                await append(store, session_id, deleted(session_id), version=1)
            await start(store, clock, f"new{after}")
    assert len(seen) == len(set(seen))
    assert [session_id for session_id in seen if session_id in staying] == (staying[::-1] if descending else staying)
    assert len(seen) > len(staying)
