"""Idempotency keys: one wish, one generation, the same answer for everybody who asks again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from unittest.mock import AsyncMock

import pytest

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.app.settings import Settings
from manent.app.usecases import build_use_cases
from manent.domain.errors import CompletionCancelledError, DeadlineExceeded, EngineUnavailable, IdempotencyConflict
from manent.domain.events import CompletionGenerated
from manent.domain.records import EventFilter, IdempotencyKey
from manent.domain.usecases.accept_completion import ChatCommand
from manent.domain.usecases.manage_sessions import StartSession
from manent.domain.usecases.repeat_completion import RepeatCompletion
from manent.domain.usecases.running import RunningCompletion
from tests.support.conversation import ANN, user
from tests.support.fakes import CountingIds
from tests.support.hooks import Held
from tests.support.manent import World, ask, make_world

KEY = IdempotencyKey(scope="acme/ann", key="k", request_digest="d")


def asked(text: str = "hi", *, key: IdempotencyKey = KEY, session_id: str | None = "s") -> ChatCommand:
    """A request with a key."""
    return ask(user(text), session_id=session_id, idempotency=key)


async def said(running: RunningCompletion) -> tuple[str, str, CompletionGenerated]:
    """What a reader gets: the completion's id, its text, its end."""
    generated = await running.generated()
    return running.completion_id, running.text, generated


async def generations(world: World) -> int:
    """How many completions the log holds."""
    return len(await world.store.query(EventFilter(type="CompletionRequested")))


@pytest.mark.parametrize("session_id", ["s", None])
async def test_a_repeated_request_is_answered_from_the_record(session_id: str | None) -> None:
    """The same id, text and usage; nothing is generated or recorded again."""
    world = make_world(Script(pieces=("Hel", "lo")))
    first = await said(world.manent.complete_chat.start(asked(session_id=session_id)))
    again = await said(world.manent.complete_chat.start(asked(session_id=session_id)))
    assert first[1] == "Hello"
    assert again == first
    assert (len(world.engine.requests), await generations(world)) == (1, 1)


@pytest.mark.parametrize("session_id", ["s", None])
async def test_a_thousand_retries_while_it_runs_are_one_generation(session_id: str | None) -> None:
    """All follow the same completion from its beginning, and all get its whole text."""
    world = make_world(Script(pieces=("Hel", "lo"), before_delta=(held := Held(1))))
    first = world.manent.complete_chat.start(asked(session_id=session_id))
    others = [world.manent.complete_chat.start(asked(session_id=session_id)) for _ in range(1000)]
    await held.reached.wait()
    held.released.set()
    answers = await asyncio.gather(*(said(running) for running in (first, *others)))
    assert {(completion_id, text) for completion_id, text, _ in answers} == {(first.completion_id, "Hello")}
    assert (len(world.engine.requests), await generations(world)) == (1, 1)


async def test_the_last_reader_that_leaves_cancels() -> None:
    """A retry that is attached keeps the generation alive when the first client goes."""
    world = make_world(Script(pieces=("a", "b"), before_delta=(held := Held(1))))
    first = world.manent.complete_chat.start(asked())
    await held.reached.wait()
    second = world.manent.complete_chat.start(asked())
    first.leave("client_disconnected")
    held.released.set()
    assert (await said(second))[1] == "ab"
    third = world.manent.complete_chat.start(asked("other", key=IdempotencyKey(scope="a", key="x", request_digest="y")))
    third.leave("client_disconnected")
    with pytest.raises(CompletionCancelledError):
        await third.generated()


async def test_a_key_with_another_request_is_a_conflict_running_or_done() -> None:
    """Neither an attached nor a recorded answer is given to a different request."""
    other = IdempotencyKey(scope=KEY.scope, key=KEY.key, request_digest="else")
    world = make_world(Script(before_delta=(held := Held(1))))
    first = world.manent.complete_chat.start(asked())
    await held.reached.wait()
    with pytest.raises(IdempotencyConflict):
        world.manent.complete_chat.start(asked("else", key=other))
    held.released.set()
    await first.generated()
    with pytest.raises(IdempotencyConflict):
        await world.manent.complete_chat.start(asked("else", key=other)).accepted()


async def test_a_failed_attempt_is_tried_again_and_then_answered() -> None:
    """A failure is no answer: the retry generates, and what it generates is the answer from then on."""
    world = make_world(Script(failure=EngineUnavailable("killed"), fails_at=1))
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            await world.manent.complete_chat.start(asked()).generated()
    world.engine.script = Script(pieces=("ok",))
    first = await said(world.manent.complete_chat.start(asked()))
    again = await said(world.manent.complete_chat.start(asked()))
    assert (first[1], again) == ("ok", first)
    assert await generations(world) == 3
    state = await world.manent.manage_sessions.get(ANN, "s")
    assert [message.text for message in state.messages] == ["hi", "ok"]


async def test_the_answer_of_another_node_is_waited_for() -> None:
    """Two nodes on one store, one key at once: one generates, the other tells what was recorded."""
    world = make_world(Script(pieces=("Hel", "lo"), before_delta=(held := Held(1))))
    engine = type(world.engine)(Script(pieces=("never",)))
    other = build_use_cases(Settings(), store=world.store, engine=engine, clock=world.clock, ids=CountingIds())
    first = world.manent.complete_chat.start(asked())
    await held.reached.wait()
    second = other.complete_chat.start(asked())
    await second.accepted()
    held.released.set()
    assert await said(second) == await said(first)
    assert not engine.requests


async def test_whoever_waits_for_another_node_waits_no_longer_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both looked before either recorded: the one that came second is told that its time is over, as any is."""
    world = make_world(Script(before_delta=(held := Held(0))))
    other = build_use_cases(
        Settings(), store=world.store, engine=ScriptedEngine(), clock=world.clock, ids=CountingIds()
    )
    first = world.manent.complete_chat.start(asked(session_id=None))
    await held.reached.wait()
    monkeypatch.setattr(RepeatCompletion, "next_attempt", AsyncMock(return_value=(KEY, None)))
    second = other.complete_chat.start(replace(asked(session_id=None), timeout_s=0.01))
    with pytest.raises(DeadlineExceeded):
        await second.generated()
    held.released.set()
    await first.generated()


async def test_a_session_is_started_once() -> None:
    """A repeated request for a new session gets the session that the first one started."""
    world = make_world()
    command = StartSession(principal=ANN, messages=(user("hi"),), idempotency=KEY)
    first = await world.manent.manage_sessions.start(command)
    again = await world.manent.manage_sessions.start(command)
    assert (again.session_id, again.version) == (first.session_id, first.version)
    assert len(await world.store.query(EventFilter(type="SessionStarted"))) == 1
