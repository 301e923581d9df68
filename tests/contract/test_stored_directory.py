"""What every directory of stored completions promises, on every store: what is shown, in what order, by what filter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sqlalchemy import URL

from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    DomainEvent,
    SessionDeleted,
    completion_stream,
    session_stream,
)
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from manent.domain.stored_completions import StoredFilter
from manent.domain.stored_events import StoredCompletionChanged, StoredCompletionDeleted, stored_stream
from tests.support.conversation import cancelled, failed, generated, requested
from tests.support.rebuilt import check_rebuilt

ANN = StoredFilter(tenant="acme", owner="ann")
END_US = 1_700_000_000_000_000


async def append(store: EventStore, stream: str, *events: DomainEvent, version: int = 0, actor: str = "ann") -> None:
    """Append behind ``version``."""
    context = EventContext(tenant="acme", actor=actor)
    await store.append(stream, events, expected_version=version, context=context)


async def complete(
    store: EventStore,
    name: str,
    *,
    end: CompletionGenerated | CompletionFailed | CompletionCancelled | None = None,
    model: str = "m",
    stored: bool = True,
    actor: str = "ann",
    **metadata: str,
) -> None:
    """A completion without a session, from its request to its end, which are two appends."""
    asked = replace(requested(name), session_id=None, context=None, stored=stored, metadata=metadata, model_id=model)
    await append(store, completion_stream(name), asked, actor=actor)
    ended = replace(end or generated("yes", name), completion_id=name, session_id=None)
    if isinstance(ended, CompletionGenerated):
        ended = replace(ended, stored=stored)
    await append(store, completion_stream(name), ended, version=1, actor=actor)


def changed(name: str, **metadata: str) -> StoredCompletionChanged:
    """Metadata is this now."""
    return StoredCompletionChanged(completion_id=name, metadata=metadata, changed_by="ann", changed_at_us=END_US)


def deleted(name: str) -> StoredCompletionDeleted:
    """It is hidden."""
    return StoredCompletionDeleted(completion_id=name, deleted_by="ann", deleted_at_us=END_US)


async def names(
    store: EventStore, wanted: StoredFilter = ANN, *, after: int | None = None, limit: int = 9, descending: bool = False
) -> list[str]:
    """The ids of a page."""
    page = await store.stored.page(wanted, after_position=after, limit=limit, descending=descending)
    return [stored.completion_id for stored in page]


async def filled(store: EventStore) -> None:
    """Every kind of completion: stored, not stored, failed, cancelled, open, another's, of a session that ended."""
    await complete(store, "a", k="v", team="x")
    await complete(store, "b", model="n", k="v")
    await complete(store, "hidden", k="v")
    await complete(store, "unwanted", stored=False, k="v")
    await complete(store, "failed", end=failed("failed"), k="v")
    await complete(store, "cancelled", end=cancelled("cancelled"), k="v")
    await complete(store, "bobs", actor="bob", k="v")
    await append(store, completion_stream("open"), replace(requested("open"), session_id=None, stored=True))
    for session_id in ("s", "ended"):
        asked = replace(requested(f"in-{session_id}"), session_id=session_id, metadata={"k": "v"})
        answered = replace(generated("yes", f"in-{session_id}"), session_id=session_id)
        await append(store, session_stream(session_id), asked, answered)
    gone = SessionDeleted(session_id="ended", deleted_by="ann", deleted_at_us=END_US)
    await append(store, session_stream("ended"), gone, version=2)
    await append(store, stored_stream("a"), changed("a", k="w", team="x"))
    await append(store, stored_stream("a"), changed("a", k="w", team="y"), version=1)
    await append(store, stored_stream("hidden"), deleted("hidden"))


async def check(store: EventStore) -> None:
    """What ``filled`` leaves to be found."""
    assert await names(store) == ["a", "b", "in-s"]
    assert await names(store, descending=True) == ["in-s", "b", "a"]
    assert await names(store, replace(ANN, owner="bob")) == ["bobs"]
    assert await names(store, replace(ANN, tenant="other")) == []
    assert await names(store, replace(ANN, model_id="n")) == ["b"]
    assert await names(store, replace(ANN, metadata={"k": "v"})) == ["b", "in-s"]
    assert await names(store, replace(ANN, metadata={"k": "v"}, model_id="n")) == ["b"]
    assert await names(store, replace(ANN, metadata={"k": "w", "team": "y"})) == ["a"]
    assert await names(store, replace(ANN, metadata={"k": "w", "team": "x"})) == []
    places = {name: await store.stored.place("acme", "ann", name) for name in ("a", "b", "in-s", "hidden")}
    assert await names(store, after=places["b"]) == ["in-s"]
    assert await names(store, after=places["hidden"], descending=True) == ["b", "a"]
    assert await names(store, limit=1) == ["a"]
    for nothing in ("open", "failed", "bobs", "unknown"):
        assert await store.stored.place("acme", "ann", nothing) is None
    for nothing in ("open", "failed", "hidden", "in-ended", "unwanted", "unknown"):
        assert await store.stored.find("acme", nothing) is None
    found = await store.stored.find("acme", "a")
    assert found is not None
    assert (found.owner, found.metadata, found.version) == ("ann", {"k": "w", "team": "y"}, 2)
    assert isinstance(found.generated, CompletionGenerated)
    assert found.generated.text == "yes"


async def test_what_is_shown_and_by_what_it_is_found(store: EventStore) -> None:
    """Only what ended well, was to be stored and was not deleted; by owner, model and metadata, in one order."""
    await filled(store)
    await check(store)


async def test_the_tables_are_made_again_from_the_log(database: Path | URL) -> None:
    """What a rebuild leaves, over full tables, is what the commits left."""
    await check_rebuilt(database, filled, check)
