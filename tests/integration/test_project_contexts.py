"""The projector and the rebuild: what any server records reaches Valkey, whenever either of them is killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from manent.adapters.projections.lru import LruContextCache
from manent.adapters.projections.redis_contexts import RedisContextCache
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.session_walk import SQLSessionWalk
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log, subscription_engine
from manent.adapters.store.subscriptions import SQLSubscriptionStore
from manent.app.background import end
from manent.app.system import RandomIds, SystemClock
from manent.domain.events import SessionDeleted, SessionEvent
from manent.domain.history import History
from manent.domain.projections import CacheUnavailable
from manent.domain.records import EventContext
from manent.domain.replay_events import Fork
from manent.domain.session import SessionState
from manent.domain.usecases.log_reader import LogReader, LogSignal
from manent.domain.usecases.project_contexts import NAME, ProjectContexts
from manent.domain.usecases.rebuild_contexts import RebuildContexts, Rebuilt
from manent.domain.usecases.sessions import Sessions
from manent.domain.usecases.subscriptions import SubscriptionLimits
from manent.domain.usecases.verify_contexts import VerifyContexts
from tests.support.conversation import NOW_US, said, started, user
from tests.support.database import empty_database
from tests.support.valkey import ValkeyServer

CONTEXT = EventContext(tenant="acme", actor="ann")
WAIT_S = 30.0


@dataclass
class World:
    """A log that somebody writes to without sharing anything, and the shared contexts."""

    store: SQLiteEventStore
    shared: RedisContextCache
    subscriptions: SQLSubscriptionStore
    writer: Sessions
    path: Path

    async def say(self, session_id: str, *texts: str) -> SessionState:
        """A session grows, or begins; nothing is written through."""
        state = await self.writer.load("acme", session_id)
        events: list[SessionEvent] = [said("user", text) for text in texts]
        if state.version == 0:
            events.insert(0, replace(started(), session_id=session_id))
        return (await self.writer.record(state, events, context=CONTEXT))[0]

    def projector(self, owner: str = "node") -> ProjectContexts:
        """A server's projector, not running."""
        signal = LogSignal()
        self.store.observe(signal.notify)
        return ProjectContexts(
            store=self.store,
            shared=self.shared,
            reader=LogReader(self.store, signal, poll_s=0.02),
            subscriptions=self.subscriptions,
            clock=SystemClock(),
            owner=owner,
            kept_for_s=3600.0,
            limits=SubscriptionLimits(ttl_s=3.0, attempts_max=2, retry_s=0.02),
        )

    async def rebuild(self, progress: Callable[[int], None] = lambda _: None) -> Rebuilt:
        """A rebuild, from the beginning to the switch."""
        rows = open_rows(self.path, strict=True)
        try:
            return await RebuildContexts(SQLSessionWalk(rows), self.writer, self.shared).run(progress)
        finally:
            await rows.aclose()

    async def until_begun(self) -> None:
        """Return once a projector has begun at the end of the log, which is not empty."""
        async with asyncio.timeout(WAIT_S):
            while await self.subscriptions.position(NAME) == 0:  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0.01)

    async def until_shared(self, state: SessionState) -> None:
        """Return once the session is shared at this version."""
        async with asyncio.timeout(WAIT_S):
            while True:
                with suppress(CacheUnavailable):
                    if await self.shared.versions([(state.tenant, state.session_id)]) == [state.version]:
                        break
                await asyncio.sleep(0.01)
        assert await self.shared.get(state.tenant, state.session_id) == state


@pytest.fixture
async def world(tmp_path: Path, own_valkey: ValkeyServer) -> AsyncGenerator[World, None]:
    """An empty log and an empty Valkey."""
    path, ids, clock = tmp_path / "manent.db", RandomIds(), SystemClock()
    empty_database(path)
    await ensure_log(path, ids)
    own_valkey.run("FLUSHALL")
    store, engine = SQLiteEventStore(path, clock=clock, ids=ids), subscription_engine(path)
    shared = RedisContextCache(RedisLink(own_valkey.url, RedisLimits(timeout_s=0.5)), log_id="log_1", ids=ids)
    writer = Sessions(store, LruContextCache(budget_bytes=10**8))
    try:
        yield World(store, shared, SQLSubscriptionStore(engine, clock=clock), writer, path)
    finally:
        await shared.aclose()
        await store.aclose()
        await engine.dispose()


@asynccontextmanager
async def running(projector: ProjectContexts) -> AsyncGenerator[asyncio.Task[None], None]:
    """The projector at work; killed at the end."""
    task = asyncio.create_task(projector.run())
    try:
        yield task
    finally:
        await end(task)


async def test_others_sessions_are_shared(world: World) -> None:
    """What a server recorded that shares nothing is there for all, and then kept up to date."""
    await world.say("old", "before the projector ever ran")
    async with running(world.projector()):
        await world.until_begun()
        for text in ("one", "two"):
            await world.until_shared(await world.say("new", text))
    assert await world.shared.versions([("acme", "old")]) == [0]


async def test_a_projector_that_is_killed_anywhere_goes_on(world: World) -> None:
    """Killed at random moments, by two owners in turn, it leaves nothing out and nothing wrong."""
    chance = random.Random(7)
    await world.say("s0", "begin")
    async with running(world.projector()):
        await world.until_begun()
    states = {}
    for number in range(25):
        session_id = f"s{chance.randrange(4)}"
        states[session_id] = await world.say(session_id, *(f"{number} {index}" for index in range(3)))
        async with running(world.projector(f"node {number % 2}")):
            await asyncio.sleep(chance.random() * 0.06)
    async with running(world.projector()):
        for state in states.values():
            await world.until_shared(state)
    assert (await VerifyContexts(world.writer, world.shared).run(lambda _: None)).wrong == 0


async def test_it_waits_for_a_redis_that_is_away(world: World, own_valkey: ValkeyServer) -> None:
    """Its checkpoint stands still meanwhile, so that nothing is passed over."""
    await world.say("s", "begin")
    async with running(world.projector()) as projecting:
        await world.until_begun()
        await world.until_shared(await world.say("s", "shared"))
        own_valkey.kill()
        checkpoint = await world.subscriptions.position(NAME)
        state = await world.say("s", "away")
        await asyncio.sleep(0.3)
        assert await world.subscriptions.position(NAME) <= checkpoint + 1
        own_valkey.start()
        await world.until_shared(state)
        assert not projecting.done()


async def test_a_rebuild_replaces_everything_at_once(world: World) -> None:
    """Old and wrong contexts are gone with their epoch; open sessions and forks are in the new one, closed ones not."""
    parent = await world.say("parent", *map(str, range(30)))
    await world.say("other", "a", "b")
    gone = await world.say("gone", "a")
    deleted = SessionDeleted(session_id="gone", deleted_by="ann", deleted_at_us=NOW_US)
    await world.writer.record(gone, [deleted], context=CONTEXT)
    fork = replace(started(), session_id="fork", parent=Fork(session_id="parent", version=4))
    inheriting = SessionState(session_id="fork", tenant="acme", messages=parent.messages.truncated(3))
    await world.writer.record(inheriting, [fork, said("user", "elsewhere")], context=CONTEXT)
    await world.shared.put(replace(parent, messages=History([user("forged")])))
    seen: list[int] = []
    rebuilt = await world.rebuild(seen.append)
    assert (rebuilt.sessions, rebuilt.events, sum(seen)) == (3, (await world.store.head()).size, rebuilt.events)
    for session_id in ("parent", "other", "fork"):
        assert await world.shared.get("acme", session_id) == await world.writer.load("acme", session_id)
    assert await world.shared.get("acme", "gone") is None
    assert rebuilt.epoch == await world.shared.epoch()


async def test_a_rebuild_that_is_killed_changes_nothing(world: World) -> None:
    """The epoch before stays the current one, until one comes to its end."""
    state = await world.say("s", "a")
    await world.shared.put(state)
    epoch = await world.shared.epoch()

    def killed(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await world.rebuild(killed)
    assert await world.shared.epoch() == epoch
    assert await world.shared.get("acme", "s") == state


async def test_a_rebuild_goes_on_across_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session may be cut anywhere by a page of the walk."""
    monkeypatch.setattr("manent.adapters.store.session_walk.PAGE_EVENTS", 7)
    states = [await world.say(f"s{number}", *map(str, range(number * 3))) for number in range(9)]
    await world.rebuild()
    for state in states:
        assert await world.shared.get("acme", state.session_id) == state


async def test_verify_names_what_differs(world: World) -> None:
    """A forged message, a forged event id, a version that the log does not have, and what is no context at all."""
    state = await world.say("s", "a", "b")
    verify = VerifyContexts(world.writer, world.shared)
    forged = History([state.messages[0], user("forged")])
    cases = [
        (replace(state, messages=forged), "message 1 is not the one in the log"),
        (replace(state, messages=state.messages.truncated(1)), "it has 1 messages, and the log 2"),
        (replace(state, owner="mallory"), "its owner is not the log's"),
        (replace(state, version=9), "it is at version 9, and the log has 3 events of the session"),
        (replace(state, last_event_id="evt"), "it ends with event 'evt'"),
    ]
    for wrong, reason in cases:
        await world.shared.forget("acme", "s")
        await world.shared.put(wrong)
        verified = await verify.run(lambda _: None)
        assert (verified.sessions, verified.wrong) == (1, 1)
        assert verified.first is not None
        assert verified.first.reason.startswith(reason)
    await world.shared._link.one("SET", world.shared._key(await world.shared.epoch(), "acme", "t"), "garbage")
    assert (await verify.run(lambda _: None)).wrong == 2
    await world.rebuild()
    assert (await verify.run(lambda _: None)).first is None
