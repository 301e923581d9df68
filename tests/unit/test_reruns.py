"""Reruns from request to end: what is generated, with which parameters, and what the log says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import SCRIPTED_CARD
from manent.domain.errors import (
    DomainError,
    EngineBusy,
    GenerationFailed,
    InvalidValue,
    ModelNotFound,
    RerunNotFound,
    SessionNotFound,
    ShuttingDown,
    TooManyReruns,
)
from manent.domain.events import CompletionRequested
from manent.domain.generation import RequestedParameters
from manent.domain.messages import Message
from manent.domain.records import Appended, IdempotencyKey
from manent.domain.replay_events import RerunEnded, RerunStarted
from manent.domain.usecases.fork_session import ForkCommand
from manent.domain.usecases.manage_sessions import StartSession
from manent.domain.usecases.run_rerun import RerunCommand
from tests.support.conversation import ANN, BOB, assistant, system, user
from tests.support.hooks import Held
from tests.support.manent import World, ask, make_world
from tests.support.replays import ended, folded, recorded, talk, texts_of, world_of_two_models

SAMPLED = RequestedParameters(temperature=0.7, top_p=0.9, max_tokens=3, seed=11, stop=("END",))


def command(session_id: str = "s", *, from_version: int = 1, **others: object) -> RerunCommand:
    """Ann's rerun, into r."""
    defaults: dict[str, object] = {"principal": ANN, "rerun_session_id": "r", **others}
    return RerunCommand(session_id=session_id, from_version=from_version, **defaults)  # type: ignore[arg-type]  # by name


async def requests(world: World, session_id: str) -> list[CompletionRequested]:
    """The completions of a session."""
    events = await world.events(f"session-{session_id}")
    return [event for event in events if isinstance(event, CompletionRequested)]


async def test_every_turn_is_generated_again_by_another_model() -> None:
    """The same is said, the other model answers, each answer seen by the next turn, with the recorded parameters."""
    world = world_of_two_models()
    await talk(world, "one", "two", parameters=SAMPLED)
    status = await world.manent.replays.rerun.start(command(model="another"))
    assert (status.status, status.turns_done, status.started.turns) == ("queued", 0, 2)
    done = await ended(world)
    assert (done.status, done.turns_done) == ("completed", 2)
    assert texts_of(await folded(world, "r")) == ["one", "other 3", "two", "other 4"]
    assert texts_of(await folded(world, "s")) == ["one", "scripted 1", "two", "scripted 2"]
    for then, now in zip(await requests(world, "s"), await requests(world, "r"), strict=True):
        assert (now.model_id, now.parameters) == ("other", then.parameters)


async def test_the_log_says_that_it_is_a_rerun() -> None:
    """RerunStarted names source and plan, the completions carry the rerun's id, RerunEnded says how it ended."""
    world = world_of_two_models()
    await talk(world, "one", "two")
    await world.manent.replays.rerun.start(command(from_version=5, request_id="req"))
    await ended(world)
    turn = ["MessageAppended", "CompletionRequested", "CompletionGenerated", "MessageAppended"]
    assert await world.types("session-r") == ["SessionStarted", "RerunStarted", *turn, "RerunEnded"]
    records = await world.store.read_stream("acme", "session-r")
    started, over = records[1].event, records[-1].event
    assert isinstance(started, RerunStarted)
    assert isinstance(over, RerunEnded)
    assert (started.source.session_id, started.source.version, started.from_version) == ("s", 9, 5)
    assert (started.turns, over.turns_done, over.status, over.rerun_id) == (1, 1, "completed", started.rerun_id)
    assert {record.header.correlation_id for record in records} == {started.rerun_id}
    assert {record.header.request_id for record in records} == {"req"}
    assert await world.store.open_completions() == []


async def test_parameters_are_overridden_one_by_one() -> None:
    """What the rerun names goes before what was recorded; the rest is as it was."""
    world = world_of_two_models()
    await talk(world, "one", parameters=SAMPLED)
    await world.manent.replays.rerun.start(command(parameters=RequestedParameters(temperature=0.0, seed=5)))
    await ended(world)
    (request,) = await requests(world, "r")
    used = request.parameters
    assert (used.temperature, used.seed, used.top_p, used.max_tokens, used.stop) == (0.0, 5, 0.9, 3, ("END",))


async def test_a_limit_that_was_the_windows_room_shrinks_with_it() -> None:
    """An original without max_tokens recorded all the room there was; longer answers leave less, and are no error."""
    world = make_world(Script(pieces=("short",)))
    await talk(world, "one", "two")
    world.engine.script = Script(pieces=("a", " much", " longer", " answer"))
    await world.manent.replays.rerun.start(command())
    assert (await ended(world)).status == "completed"
    first, second = await requests(world, "r")
    for request in (first, second):
        assert request.parameters.max_tokens + request.prompt_tokens <= SCRIPTED_CARD.context_length


async def test_what_was_never_answered_ends_the_rerun_as_it_ended_the_original() -> None:
    """A question without an answer is said and not answered."""
    world = world_of_two_models()
    await talk(world, "one")
    said = ask(user("and now?"), session_id="s")
    held = Held(0)
    world.engine.script = Script(pieces=("never",), before_delta=held)
    running = world.manent.complete_chat.start(said)
    await held.reached.wait()
    running.cancel("client_disconnected")
    with pytest.raises(DomainError):
        await running.generated()
    world.engine.script = Script(pieces=("again",))
    await world.manent.replays.rerun.start(command())
    await ended(world)
    assert texts_of(await folded(world, "r")) == ["one", "again", "and now?"]


async def test_a_conversation_that_was_edited_is_rerun_as_it_became() -> None:
    """From before the edit: the fork follows the edit and the new system prompt, and generates the rest."""
    world = world_of_two_models()
    await talk(world, "one", "two")
    edit = ask(system("be kind"), user("one"), assistant("scripted 1"), user("TWO"), session_id="s")
    await world.manent.complete_chat.start(edit).generated()
    await world.manent.replays.rerun.start(command(from_version=9, model="other"))
    await ended(world)
    assert texts_of(await folded(world, "r")) == ["be kind", "one", "scripted 1", "TWO", "other 4"]
    assert (await world.types("session-r"))[:4] == [
        "SessionStarted",
        "RerunStarted",
        "SystemPromptReplaced",
        "HistoryRevised",
    ]


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        (command(from_version=9), InvalidValue, "nothing was answered behind version 9"),
        (command(from_version=10), InvalidValue, "has 1 to 9"),
        (command(model="nothing"), ModelNotFound, "nothing"),
        (command(principal=BOB), SessionNotFound, "no session"),
        (command("nobody"), SessionNotFound, "no session"),
    ],
)
async def test_what_cannot_be_rerun_is_refused_before_anything_is_recorded(
    asked: RerunCommand, error: type[DomainError], said: str
) -> None:
    """The bad wish is named, no session is started, and no place stays taken."""
    world = world_of_two_models(reruns_max=1, reruns_waiting_max=0)
    await talk(world, "one", "two")
    for _ in range(3):
        with pytest.raises(error, match=said):
            await world.manent.replays.rerun.start(asked)
    assert await world.types("session-r") == []


async def test_an_original_whose_model_is_gone_needs_another() -> None:
    """The registry is asked before anything is recorded."""
    world = world_of_two_models()
    await talk(world, "one")
    world.engine._by_name = dict.fromkeys(("scripted", "default"), SCRIPTED_CARD)  # it stays, under its own names
    await world.manent.complete_chat.start(ask(user("two"), session_id="s")).generated()
    world.engine._by_name.clear()
    with pytest.raises(ModelNotFound):
        await world.manent.replays.rerun.start(command())


async def test_whoever_asked_may_leave_while_it_is_recorded() -> None:
    """What was recorded is run: the request's end does not come between the two."""
    world = world_of_two_models()
    await talk(world, "one")
    append, reached, released = world.store.append, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any, **named: Any) -> Appended:
        reached.set()
        await released.wait()
        return await append(*arguments, **named)

    world.store.append = slow  # type: ignore[method-assign]  # a database that takes its time
    asking = asyncio.create_task(world.manent.replays.rerun.start(command()))
    await reached.wait()
    asking.cancel()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: any(entry.header.type == "RerunStarted" for entry in world.store._log))
    assert (await ended(world)).status == "completed"


async def test_an_idempotency_key_starts_one_rerun() -> None:
    """A repeated request has the status of the first one's, while it runs and after it."""
    world = world_of_two_models()
    await talk(world, "one")
    key = IdempotencyKey(scope="acme/ann", key="k", request_digest="d")
    asked = command(rerun_session_id=None, idempotency=key)
    racing = await asyncio.gather(*(world.manent.replays.rerun.start(asked) for _ in range(4)))
    assert len({status.started.rerun_id for status in racing}) == 1
    session_id = racing[0].started.session_id
    await ended(world, session_id)
    assert (await world.manent.replays.rerun.start(asked)).status == "completed"
    assert len(await requests(world, session_id)) == 1


async def test_only_reruns_have_a_status() -> None:
    """Also a fork of a rerun is none."""
    world = world_of_two_models()
    await talk(world, "one")
    await world.manent.replays.rerun.start(command())
    await ended(world)
    await recorded(world).fork.run(ForkCommand(principal=ANN, session_id="r", fork_id="f"))
    for session_id in ("s", "f"):
        with pytest.raises(RerunNotFound):
            await world.manent.replays.rerun.status(ANN, session_id)
    with pytest.raises(SessionNotFound):
        await world.manent.replays.rerun.status(BOB, "r")


async def test_reruns_are_bounded_and_wait_for_each_other() -> None:
    """One at a time here, one waiting; the third is refused, and there is room again when the first has ended."""
    held = Held(0)
    world = make_world(Script(pieces=("a",)), reruns_max=1, reruns_waiting_max=1)
    await talk(world, "one")
    world.engine.script = Script(pieces=("b",), before_delta=held)
    start = world.manent.replays.rerun.start
    await start(command(rerun_session_id="r1"))
    await start(command(rerun_session_id="r2"))
    await held.reached.wait()
    with pytest.raises(TooManyReruns):
        await start(command(rerun_session_id="r3"))
    assert await world.types("session-r3") == []
    statuses = [(await world.manent.replays.rerun.status(ANN, name)).status for name in ("r1", "r2")]
    assert statuses == ["running", "queued"]
    held.released.set()
    assert [(await ended(world, name)).status for name in ("r1", "r2")] == ["completed", "completed"]
    await start(command(rerun_session_id="r3"))
    assert (await ended(world, "r3")).status == "completed"


async def test_a_turn_that_finds_no_room_is_tried_again() -> None:
    """What the engine's bound refuses was not accepted, so that it can wait; what was accepted is never repeated."""
    world = make_world(Script(pieces=("a",)))
    await talk(world, "one")
    refusals = [EngineBusy("full"), EngineBusy("full")]
    place = world.engine.place

    def full(model_id: str, **how: Any) -> object:
        if refusals:
            raise refusals.pop()
        return place(model_id, **how)

    world.engine.place = full  # type: ignore[method-assign, assignment]  # the bound, for two times
    await world.manent.replays.rerun.start(command())
    assert (await ended(world)).status == "completed"
    assert len(await requests(world, "r")) == 1
    assert world.clock.slept_s[:2] == [1.0, 2.0]


async def test_a_failed_turn_ends_the_rerun_and_says_why() -> None:
    """What was generated until then stays, and so does the failure."""
    world = make_world(Script(pieces=("a",)))
    await talk(world, "one", "two")
    answers = iter([Script(pieces=("b",)), Script(pieces=("c",), failure=GenerationFailed("out of luck"))])
    world.engine.script = lambda _: next(answers)
    await world.manent.replays.rerun.start(command())
    done = await ended(world)
    assert done.ended is not None
    assert (done.status, done.turns_done) == ("failed", 1)
    assert (done.ended.code, done.ended.reason) == ("generation_failed", "out of luck")
    assert texts_of(await folded(world, "r")) == ["one", "b", "two"]


async def test_deleting_the_fork_ends_its_rerun() -> None:
    """Its completion is cancelled, and the end is recorded behind the deletion."""
    held = Held(0)
    world = make_world(Script(pieces=("a",)))
    await talk(world, "one", "two")
    world.engine.script = Script(pieces=("b",), before_delta=held)
    await world.manent.replays.rerun.start(command())
    await held.reached.wait()
    await world.manent.manage_sessions.delete(ANN, "r", request_id=None)
    await until(lambda: len(world.manent.reruns._tasks) == 0)
    assert (await world.types("session-r"))[-3:].count("RerunEnded") == 1
    assert await world.store.open_completions() == []


async def test_a_draining_server_interrupts_reruns_honestly() -> None:
    """The one that runs ends with its completion, the one that waits at once, both as interrupted; no new ones."""
    held = Held(0)
    world = make_world(Script(pieces=("a",)), reruns_max=1)
    await talk(world, "one", "two")
    world.engine.script = Script(pieces=("b",), before_delta=held)
    for name in ("r1", "r2"):
        await world.manent.replays.rerun.start(command(rerun_session_id=name))
    await held.reached.wait()
    world.manent.reruns.stop()
    assert await world.manent.live.drain(finish_s=0.0, close_s=1.0) == 0
    assert await world.manent.reruns.drain(close_s=1.0) == 0
    for name in ("r1", "r2"):
        done = await ended(world, name)
        assert done.ended is not None
        assert (done.status, done.turns_done, done.ended.code) == ("interrupted", 0, "shutting_down")
    with pytest.raises(ShuttingDown):
        await world.manent.replays.rerun.start(command(rerun_session_id="r3"))


async def test_a_rerun_that_a_crash_left_is_closed_as_interrupted() -> None:
    """The next server closes its completion and then the rerun, once, and says how many turns were done."""
    held = Held(1)
    world = make_world(Script(pieces=("a",)))
    await talk(world, "one", "two")
    answers = iter([Script(pieces=("b",)), Script(pieces=("c", "d"), before_delta=held)])
    world.engine.script = lambda _: next(answers)
    await world.manent.replays.rerun.start(command())
    await held.reached.wait()
    recovery = world.manent.close_interrupted
    recovery._live = ()  # as for a server that has just started: it runs nothing of what the log has open
    assert await recovery.run() == 2
    assert await recovery.run() == 0
    status = await world.manent.replays.rerun.status(ANN, "r")
    assert status.ended is not None
    assert (status.status, status.turns_done, status.ended.reason) == (
        "interrupted",
        1,
        "the server ended before the rerun did",
    )
    held.released.set()
    await until(lambda: len(world.manent.reruns._tasks) == 0)
    assert (await world.types("session-r")).count("RerunEnded") == 1


async def test_sweeping_leaves_running_reruns_alone() -> None:
    """What this server runs is no orphan, however long it runs."""
    held = Held(0)
    world = make_world(Script(pieces=("a",)))
    await talk(world, "one")
    world.engine.script = Script(pieces=("b",), before_delta=held)
    await world.manent.replays.rerun.start(command())
    await held.reached.wait()
    assert await world.manent.close_interrupted.run() == 0
    held.released.set()
    assert (await ended(world)).status == "completed"


async def test_an_imported_conversation_is_rerun_by_the_default_model() -> None:
    """Its answers were generated by nobody here, and still answer something."""
    world = world_of_two_models()
    spoken: tuple[Message, ...] = (user("one"), assistant("from elsewhere"), user("two"), assistant("too"))
    await world.manent.manage_sessions.start(StartSession(principal=ANN, session_id="s", messages=spoken))
    await world.manent.replays.rerun.start(command())
    await ended(world)
    assert texts_of(await folded(world, "r")) == ["one", "scripted 1", "two", "scripted 2"]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a task brings about."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (a task's end sets no event)
            await asyncio.sleep(0)
