"""The contract of context caches: in this process, in Valkey, and one behind the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import fields, replace

import pytest

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.layered import GuardedContextCache, LayeredContextCache
from manent.adapters.projections.lru import LruContextCache
from manent.adapters.projections.redis_contexts import RedisContextCache
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.app.system import RandomIds
from manent.domain.events import DomainEvent, HistoryRevised, SystemPromptReplaced
from manent.domain.messages import Message, Role, TextPart, ToolCall
from manent.domain.ports import ContextCache
from manent.domain.replay_events import Fork
from manent.domain.session import SessionState, SessionStatus
from manent.domain.session_fold import fold
from tests.support.conversation import NOW_US, generated, requested, said, started, system
from tests.support.pictures import image_part, picture
from tests.support.valkey import ValkeyServer

ABSENT = SessionState(session_id="s", tenant="acme")
REVISED = HistoryRevised(session_id="s", from_message_id="m", from_index=1, revised_by="ann", revised_at_us=NOW_US)
PROMPTED = SystemPromptReplaced(session_id="s", messages=(system("be kind"),), replaced_by="ann", replaced_at_us=NOW_US)


@pytest.fixture(params=["lru", "redis", "layered"])
async def cache(request: pytest.FixtureRequest) -> AsyncGenerator[ContextCache, None]:
    """An empty cache of each kind."""
    near = LruContextCache(budget_bytes=10**8)
    if request.param == "lru":
        yield near
        return
    valkey: ValkeyServer = request.getfixturevalue("valkey")
    ids = RandomIds()
    link = RedisLink(valkey.url, RedisLimits(timeout_s=5.0))
    redis = RedisContextCache(link, log_id=ids.new("log_"), ids=ids)
    guarded = GuardedContextCache(redis, CircuitBreaker(period_s=5.0))
    yield redis if request.param == "redis" else LayeredContextCache(near, guarded)
    await redis.aclose()


def after(state: SessionState, *events: DomainEvent, last_event_id: str = "evt") -> SessionState:
    """A state as the log's reader folds it."""
    return replace(fold(state, events), last_event_id=last_event_id)


ALL_OF_A_MESSAGE = Message(
    message_id="msg_all",
    role=Role.ASSISTANT,
    content=(TextPart(text="a"), TextPart(text="b")),
    name="ann",
    tool_calls=(ToolCall(id="c", name="f", arguments="{}", custom=True),),
    tool_call_id="c",
    images=(image_part(picture(), text_before=1),),
    reasoning="hm",
)


async def test_every_member_of_a_message_comes_back(cache: ContextCache) -> None:
    """Images, reasoning and kinds of calls too: a new member of messages needs its place in every cache."""
    assert all(getattr(ALL_OF_A_MESSAGE, member.name) for member in fields(Message))
    said_all = replace(said("assistant", "x"), message=ALL_OF_A_MESSAGE)
    state = after(ABSENT, started(), said_all)
    await cache.put(state)
    found = await kept(cache)
    assert found is not None
    assert list(found.messages) == [ALL_OF_A_MESSAGE]


async def kept(cache: ContextCache) -> SessionState | None:
    """What the cache knows of the session."""
    return await cache.get("acme", "s")


async def test_what_is_put_comes_back(cache: ContextCache) -> None:
    """Every member of a state, and the id of its last event."""
    state = after(ABSENT, started(), said("user", "hello\n\0 \N{GRINNING FACE}"), requested(), last_event_id="evt_3")
    state = replace(state, metadata={"a": "b"}, ttl_s=7, parent=Fork(session_id="p", version=3), started_at_us=5)
    await cache.put(state)
    found = await kept(cache)
    assert found == state
    assert found is not None
    assert found.last_event_id == "evt_3"


async def test_nothing_is_known_of_others(cache: ContextCache) -> None:
    """Tenant and session id are both part of the key."""
    await cache.put(after(ABSENT, started()))
    assert await cache.get("acme", "t") is None
    assert await cache.get("other", "s") is None


async def test_a_session_grows_step_by_step(cache: ContextCache) -> None:
    """Whatever an event does to a state, the state before it and what is new add up to the state after it."""
    state = ABSENT
    steps: list[DomainEvent] = [
        started(),
        said("user", "a"),
        requested(),
        generated(),
        said("assistant", "b"),
        PROMPTED,
        REVISED,
    ]
    for number, event in enumerate([*steps, said("user", "c"), PROMPTED], 1):
        before, state = state, after(state, event, last_event_id=f"evt_{number}")
        await cache.put(state, before=before)
        found = await kept(cache)
        assert found == state
        assert found is not None
        assert found.last_event_id == f"evt_{number}"


async def test_many_steps_are_the_same_as_one(cache: ContextCache) -> None:
    """What was written in hundreds of parts is read as a whole."""
    state = after(ABSENT, started())
    await cache.put(state)
    for number in range(300):
        before, state = state, after(state, said("user", str(number)))
        await cache.put(state, before=before)
    assert await kept(cache) == state


async def test_an_older_state_does_not_replace_a_newer_one(cache: ContextCache) -> None:
    """Two writers may arrive in either order, and twice."""
    one = after(ABSENT, started())
    two = after(one, said("user", "a"))
    three = after(two, said("user", "b"))
    for state, before in ((three, None), (one, None), (two, one), (two, None), (three, two)):
        await cache.put(state, before=before)
        assert await kept(cache) == three


async def test_a_gap_is_closed(cache: ContextCache) -> None:
    """What goes on from a state that is not kept is kept as a whole."""
    one = after(ABSENT, started())
    two = after(one, said("user", "a"))
    three = after(two, said("user", "b"))
    await cache.put(three, before=two)
    assert await kept(cache) == three
    await cache.forget("acme", "s")
    await cache.put(one)
    await cache.put(three, before=two)
    assert await kept(cache) == three


async def test_what_is_forgotten_is_gone(cache: ContextCache) -> None:
    """A state that the log refutes can be dropped, and an older one kept in its place."""
    one = after(ABSENT, started())
    await cache.put(after(one, said("user", "a")))
    await cache.forget("acme", "s")
    await cache.forget("acme", "never there")
    assert await kept(cache) is None
    await cache.put(one)
    assert await kept(cache) == one


async def test_a_closed_session_is_kept_like_any_other(cache: ContextCache) -> None:
    """That a session is over is part of its state."""
    state = replace(after(ABSENT, started()), status=SessionStatus.DELETED)
    await cache.put(state)
    assert await kept(cache) == state
