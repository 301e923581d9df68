"""Forks: the past is shared and not copied, and nothing that happens in one is seen in the other."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from manent.adapters.inference.script import Script
from manent.domain.errors import InvalidValue, SessionAlreadyExists, SessionNotFound
from manent.domain.events import MessageAppended, SessionStarted
from manent.domain.records import IdempotencyKey
from manent.domain.replay_events import Fork
from manent.domain.usecases.fork_session import ForkCommand
from manent.domain.usecases.lineage import FORK_DEPTH_MAX
from tests.support.conversation import ANN, BOB, assistant, system, user
from tests.support.hooks import Held
from tests.support.manent import World, ask, make_world
from tests.support.replays import AUDITOR, folded, recorded, talk, texts_of, world_of_two_models

FORK = ForkCommand(principal=ANN, session_id="s", fork_id="f")


async def test_a_fork_shares_the_past_without_copying_it() -> None:
    """Its stream is one event that names where it branched off; its messages are the parent's, ids and all."""
    world = world_of_two_models()
    await talk(world, "one", "two")
    fork = await recorded(world).fork.run(replace(FORK, at_version=5, metadata={"k": "v"}))
    (started,) = await world.events("session-f")
    assert isinstance(started, SessionStarted)
    assert (started.parent, started.metadata, started.owner) == (Fork(session_id="s", version=5), {"k": "v"}, "ann")
    parent = await folded(world, "s")
    assert list(fork.messages) == parent.messages[:2]
    assert await folded(world, "f") == fork


async def test_a_fork_and_its_parent_go_their_own_ways() -> None:
    """Both go on, and neither sees the other's turns; the fork's model sees the shared past."""
    world = world_of_two_models()
    await talk(world, "one")
    await recorded(world).fork.run(FORK)
    await talk(world, "for the fork", session_id="f")
    assert [message.text for message in world.engine.rendered[-1]] == ["one", "scripted 1", "for the fork"]
    await talk(world, "for the parent")
    for name, own in (("s", ["for the parent", "scripted 3"]), ("f", ["for the fork", "scripted 2"])):
        assert texts_of(await folded(world, name)) == ["one", "scripted 1", *own]
        assert texts_of(await recorded(world).replay.at(ANN, name)) == ["one", "scripted 1", *own]


async def test_a_fork_rewrites_what_it_inherited_and_nothing_else() -> None:
    """A revised history and a replaced system prompt work on shared messages; the parent keeps its own."""
    world = world_of_two_models()
    await world.manent.complete_chat.start(ask(system("be brief"), user("one"), session_id="s")).generated()
    await talk(world, "two")
    before = await folded(world, "s")
    await recorded(world).fork.run(FORK)
    edited = ask(system("be long"), user("ONE"), assistant("scripted 1"), user("three"), session_id="f")
    await world.manent.complete_chat.start(edited).generated()
    types = await world.types("session-f")
    assert types[:3] == ["SessionStarted", "HistoryRevised", "SystemPromptReplaced"]
    assert texts_of(await folded(world, "f")) == ["be long", "ONE", "scripted 1", "three", "scripted 3"]
    assert await folded(world, "s") == before


async def test_a_fork_of_an_open_completion_has_none() -> None:
    """It may be taken while an answer is generated, and has its own turn at once."""
    held = Held(0)
    world = make_world(Script(pieces=("slow",), before_delta=held))
    running = world.manent.complete_chat.start(ask(user("one"), session_id="s"))
    await held.reached.wait()
    fork = await recorded(world).fork.run(FORK)
    assert (fork.open_completion_id, texts_of(fork)) == (None, ["one"])
    held.released.set()
    await running.generated()
    await talk(world, "two", session_id="f")
    assert texts_of(await folded(world, "f")) == ["one", "two", "slow"]


async def test_a_fork_of_a_fork_of_a_deleted_session_works() -> None:
    """What a fork shares stays shared, whatever happens to the one it came from."""
    world = world_of_two_models()
    await talk(world, "one")
    await recorded(world).fork.run(FORK)
    await talk(world, "two", session_id="f")
    for name in ("s", "f"):
        await world.manent.manage_sessions.delete(ANN, name, request_id=None)
    with pytest.raises(SessionNotFound):
        await recorded(world).fork.run(replace(FORK, session_id="f", fork_id="g"))
    by_auditor = ForkCommand(principal=AUDITOR, session_id="f", fork_id="g", at_version=5)
    fork = await recorded(world).fork.run(by_auditor)
    assert (fork.owner, texts_of(fork)) == ("eve", ["one", "scripted 1", "two", "scripted 2"])
    assert texts_of(await folded(world, "g")) == texts_of(fork)


async def test_who_may_not_read_may_not_fork() -> None:
    """Another subject's session is no session."""
    world = world_of_two_models()
    await talk(world, "one")
    with pytest.raises(SessionNotFound):
        await recorded(world).fork.run(replace(FORK, principal=BOB))


async def test_versions_and_ids_are_checked() -> None:
    """A version that is not there, a taken id, an impossible id: refused, and nothing recorded."""
    world = world_of_two_models()
    await talk(world, "one")
    for command, error in (
        (replace(FORK, at_version=9), InvalidValue),
        (replace(FORK, fork_id="s"), SessionAlreadyExists),
        (replace(FORK, fork_id="import"), InvalidValue),
        (replace(FORK, fork_id="no/slash"), InvalidValue),
    ):
        with pytest.raises(error):
            await recorded(world).fork.run(command)
    assert await world.types("session-f") == []


async def test_an_idempotency_key_forks_once() -> None:
    """A repeated request has the same fork, also when the first one's answer was lost."""
    world = world_of_two_models()
    await talk(world, "one")
    key = IdempotencyKey(scope="acme/ann", key="k", request_digest="d")
    first = await recorded(world).fork.run(replace(FORK, fork_id=None, idempotency=key))
    again = await recorded(world).fork.run(replace(FORK, fork_id=None, idempotency=key))
    assert first.session_id == again.session_id
    assert texts_of(again) == texts_of(first)


async def test_forks_stand_on_a_bounded_number_of_forks() -> None:
    """Sixty-four deep a fork still loads, from nothing and from any cache; one deeper is refused."""
    world = world_of_two_models()
    await talk(world, "one")
    for depth in range(FORK_DEPTH_MAX):
        parent = "s" if depth == 0 else f"f{depth - 1}"
        await recorded(world).fork.run(replace(FORK, session_id=parent, fork_id=f"f{depth}"))
        if depth % 10 == 0:
            await talk(world, f"at {depth}", session_id=f"f{depth}")
    deepest = f"f{FORK_DEPTH_MAX - 1}"
    state = await folded(world, deepest)
    assert [text for text in texts_of(state) if text.startswith("at")] == [f"at {n}" for n in range(0, 64, 10)]
    assert state == await recorded(world).replay.at(ANN, deepest)
    with pytest.raises(InvalidValue, match="64 forks already"):
        await recorded(world).fork.run(replace(FORK, session_id=deepest, fork_id="too-deep"))


async def test_racing_forks_under_one_id_make_one() -> None:
    """The log decides: one stands, the others are told that the id is taken."""
    world = world_of_two_models()
    await talk(world, "one")
    results = await asyncio.gather(*(recorded(world).fork.run(FORK) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, SessionAlreadyExists) for result in results) == 4
    assert await world.types("session-f") == ["SessionStarted"]


async def copied(world: World) -> int:
    """How many messages the log holds."""
    streams = ("s", "f")
    events = [event for name in streams for event in await world.events(f"session-{name}")]
    return sum(isinstance(event, MessageAppended) for event in events)


async def test_forking_writes_no_messages() -> None:
    """However long the past is."""
    world = world_of_two_models()
    await talk(world, *(f"turn {number}" for number in range(30)))
    before = await copied(world)
    await recorded(world).fork.run(FORK)
    assert await copied(world) == before
