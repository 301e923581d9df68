"""What replays look up in every store: a completion by its id, and reruns that have no end."""

from __future__ import annotations

from manent.domain.events import DomainEvent
from manent.domain.ports import EventStore
from manent.domain.records import EventContext, OpenCompletion
from manent.domain.replay_events import RerunEnded
from tests.support.conversation import NOW_US, generated, requested, said, started
from tests.support.replays import BEGUN

ANN = EventContext(tenant="acme", actor="ann")
OVER = RerunEnded(
    session_id="s",
    rerun_id="rerun_1",
    status="completed",
    turns_done=1,
    code=None,
    reason=None,
    ended_at_us=NOW_US,
)


async def test_a_completion_of_a_session_is_found_by_its_id(store: EventStore) -> None:
    """Its request's position, within the tenant, also once it has ended and whatever else was in the append."""
    await store.append("session-x", [started()], expected_version=0, context=ANN)
    events: list[DomainEvent] = [
        started(),
        said("user", "hi"),
        requested("c1"),
        generated("hello", "c1"),
        said("assistant", "hello"),
    ]
    await store.append("session-s", events, expected_version=0, context=ANN)
    assert await store.find_completion("acme", "c1") == 4
    assert await store.find_completion("acme", "c2") is None
    assert await store.find_completion("other", "c1") is None


async def test_a_rerun_is_open_until_its_end(store: EventStore) -> None:
    """It is kept where completions without an end are, so that recovery finds it; its completions come and go."""
    await store.append("session-s", [started(), BEGUN], expected_version=0, context=ANN)
    mark = OpenCompletion(tenant="acme", stream_id="session-s", completion_id="rerun_1")
    assert await store.open_completions() == [mark]
    await store.append("session-s", [requested("c1"), generated("a", "c1")], expected_version=2, context=ANN)
    assert await store.orphaned_completions(completion_id="rerun_1") == [mark]
    assert await store.find_completion("acme", "rerun_1") is None
    await store.append("session-s", [OVER], expected_version=4, context=ANN)
    assert await store.open_completions() == []
    assert [record.event for record in await store.read_stream("acme", "session-s")][1::3] == [BEGUN, OVER]
