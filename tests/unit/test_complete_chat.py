"""Completions from acceptance to their one terminal event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest

from manent.adapters.inference.admission import Admission, AdmissionLimits
from manent.adapters.inference.script import Script
from manent.domain.errors import (
    CompletionCancelledError,
    ContextLengthExceeded,
    DomainError,
    EngineBusy,
    EngineUnavailable,
    HistoryConflict,
    InternalError,
    ModelNotFound,
    SessionBusy,
    SessionClosed,
    SessionNotFound,
    ShuttingDown,
    StoreUnavailable,
)
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionRequested,
    DomainEvent,
    MessageAppended,
)
from manent.domain.generation import RequestedParameters, TextDelta, Truncation
from manent.domain.messages import Message
from manent.domain.reconcile import SessionMode
from manent.domain.records import EventContext, EventFilter
from manent.domain.usecases.accept_completion import ChatCommand
from tests.support.conversation import BOB, assistant, message, requested, said, started, system, user
from tests.support.hooks import Held
from tests.support.manent import World, ask, make_world

CONTEXT = EventContext(tenant="acme", actor="ann")


async def answer(world: World, command: ChatCommand) -> CompletionGenerated:
    """The success of ``command``."""
    return await world.manent.complete_chat.start(command).generated()


async def test_a_turn_in_a_session_is_two_appends() -> None:
    """Before generation the message and the request are recorded, after it the result and the answer."""
    world = make_world(Script(pieces=("Hel", "lo")))
    await answer(world, ask(user("hi"), session_id="s"))
    assert await world.types("session-s") == [
        "SessionStarted",
        "MessageAppended",
        "CompletionRequested",
        "CompletionGenerated",
        "MessageAppended",
    ]
    events = await world.events("session-s")
    assert isinstance(events[3], CompletionGenerated)
    assert isinstance(events[4], MessageAppended)
    assert (events[3].text, events[4].message.text) == ("Hello", "Hello")
    assert events[4].message.message_id == events[3].message_id


async def test_generation_sees_the_whole_session() -> None:
    """The third turn's prompt holds the first two, with their answers, and the log names what was seen."""
    world = make_world(Script(pieces=("ok",)))
    for text in ("one", "two", "three"):
        await answer(world, ask(user(text), session_id="s"))
    assert [m.text for m in world.engine.rendered[-1]] == ["one", "ok", "two", "ok", "three"]
    last = [event for event in await world.events("session-s") if isinstance(event, CompletionRequested)][-1]
    assert last.context is not None
    assert list(last.context.message_ids) == [m.message_id for m in world.engine.rendered[-1]]
    assert last.prompt_tokens == len(world.engine.requests[-1].prompt.token_ids)
    assert last.prompt_digest.matches(world.engine.requests[-1].prompt.token_bytes)


async def test_without_a_session_nothing_that_was_said_is_recorded() -> None:
    """Two events with digests, parameters and usage; no text and no token ids."""
    world = make_world(Script(pieces=("secret", " answer")))
    generated = await answer(world, ask(user("secret question")))
    entries = await world.store.query(EventFilter())
    assert [entry.header.type for entry in entries] == ["CompletionRequested", "CompletionGenerated"]
    assert all(b"secret" not in (entry.payload or b"") for entry in entries)
    assert generated.text is None
    assert generated.token_ids is None
    assert generated.text_digest.matches(b"secret answer")
    request = (await world.events(f"completion-{generated.completion_id}"))[0]
    assert isinstance(request, CompletionRequested)
    assert request.input[0].digest.matches(b"secret question")


@pytest.mark.parametrize(("settings", "store"), [({}, True), ({"record": "content"}, False)])
async def test_content_is_recorded_where_that_is_wanted(settings: dict[str, str], *, store: bool) -> None:
    """``store`` in the request or ``MANENT_RECORD=content`` keeps the words of a completion without a session."""
    world = make_world(Script(pieces=("yes",)), **settings)
    generated = await answer(world, ask(user("really?"), store_content=store))
    request = (await world.events(f"completion-{generated.completion_id}"))[0]
    assert generated.text == "yes"
    assert isinstance(request, CompletionRequested)
    assert request.input[0].content == user("really?")


async def test_deltas_are_followed_from_the_beginning_by_any_reader() -> None:
    """A reader that comes late or twice sees every delta once and in order."""
    world = make_world(Script(pieces=("a", "b", "c")))
    running = world.manent.complete_chat.start(ask(user("hi")))
    early = asyncio.create_task(_texts(running.deltas()))
    await running.generated()
    assert await _texts(running.deltas()) == ["a", "b", "c"]
    assert await early == ["a", "b", "c"]
    assert running.text == "abc"


async def _texts(deltas: AsyncGenerator[TextDelta, None], into: list[str] | None = None) -> list[str]:
    texts = [] if into is None else into
    async for delta in deltas:
        texts.append(delta.text)
    return texts


async def test_success_is_told_only_after_it_is_recorded() -> None:
    """While the store refuses the terminal event, no reader hears of the end."""
    world = make_world(Script(pieces=("a",), before_delta=(held := Held(0))))
    running = world.manent.complete_chat.start(ask(user("hi"), session_id="s"))
    await held.reached.wait()
    world.store.refusals = 2
    held.released.set()
    await running.generated()
    assert world.clock.slept_s == [0.1, 0.3]
    assert (await world.types("session-s"))[-2:] == ["CompletionGenerated", "MessageAppended"]


@pytest.mark.parametrize("session_id", ["s", None])
async def test_what_could_not_be_recorded_in_time_is_recorded_as_the_failure_that_was_told(
    session_id: str | None,
) -> None:
    """When the store is back, the log has the one terminal event, with what was generated and why it failed."""
    world = make_world(Script(pieces=("a",), before_delta=(held := Held(0))), record="content")
    running = world.manent.complete_chat.start(ask(user("hi"), session_id=session_id))
    await held.reached.wait()
    world.store.refusals = 100
    held.released.set()
    with pytest.raises(StoreUnavailable):
        await running.generated()
    assert world.manent.closing.kept == 1
    await world.manent.closing.close_kept()
    assert world.manent.closing.kept == 1
    world.store.refusals = 0
    await world.manent.closing.close_kept()
    assert (world.manent.closing.kept, await world.store.open_completions()) == (0, [])
    event = (await world.events(f"session-{session_id}" if session_id else f"completion-{running.completion_id}"))[-1]
    assert isinstance(event, CompletionFailed)
    assert (event.code, event.text, event.reason.startswith("it was generated")) == ("store_unavailable", "a", True)


async def test_a_store_that_stays_away_is_an_error_and_the_next_request_cleans_up() -> None:
    """No success without a record; the session is not blocked by what was left open."""
    world = make_world(Script(pieces=("a",), before_delta=(held := Held(0))))
    running = world.manent.complete_chat.start(ask(user("hi"), session_id="s"))
    await held.reached.wait()
    world.store.refusals = 100
    held.released.set()
    with pytest.raises(StoreUnavailable):
        await running.generated()
    world.store.refusals = 0
    await answer(world, ask(user("hi"), session_id="s"))
    types = await world.types("session-s")
    assert types == [
        "SessionStarted",
        "MessageAppended",
        "CompletionRequested",
        "CompletionFailed",
        "CompletionRequested",
        "CompletionGenerated",
        "MessageAppended",
    ]
    failed = (await world.events("session-s"))[3]
    assert isinstance(failed, CompletionFailed)
    assert failed.code == "store_unavailable"
    assert world.manent.closing.kept == 0


async def test_a_refused_first_append_leaves_nothing() -> None:
    """When even the request cannot be recorded, the error says so and no generation starts."""
    world = make_world()
    world.store.refusals = 1
    with pytest.raises(StoreUnavailable):
        await world.manent.complete_chat.start(ask(user("hi"), session_id="s")).accepted()
    assert await world.types("session-s") == []
    assert not world.engine.requests


async def test_an_engine_failure_is_recorded_with_what_came_before() -> None:
    """The reader gets the deltas and then the error; the log keeps both."""
    failure = EngineUnavailable("killed")
    world = make_world(Script(pieces=("a", "b"), failure=failure, fails_at=1))
    running = world.manent.complete_chat.start(ask(user("hi"), session_id="s"))
    texts: list[str] = []
    with pytest.raises(EngineUnavailable):
        await _texts(running.deltas(), into=texts)
    event = (await world.events("session-s"))[-1]
    assert isinstance(event, CompletionFailed)
    assert (texts, event.text, event.code, event.reason) == (["a"], "a", "runner_crashed", "killed")
    assert event.usage is not None
    assert event.usage.completion_tokens == 1


async def test_a_defect_of_the_engine_is_a_recorded_failure(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody foresaw closes the completion as well, and is logged in full."""

    async def broken(_number: int) -> None:
        raise ZeroDivisionError

    world = make_world(Script(before_delta=broken))
    with pytest.raises(InternalError):
        await answer(world, ask(user("hi"), session_id="s"))
    assert (await world.types("session-s"))[-1] == "CompletionFailed"
    assert "ZeroDivisionError" in caplog.text


async def test_a_disconnect_cancels_generation_and_is_recorded() -> None:
    """The engine is closed, the terminal event has the reason and the partial answer."""
    world = make_world(Script(pieces=("a", "b"), before_delta=(held := Held(1))))
    running = world.manent.complete_chat.start(ask(user("hi"), session_id="s"))
    await held.reached.wait()
    running.cancel("client_disconnected")
    running.cancel("another reason")
    with pytest.raises(CompletionCancelledError):
        await running.generated()
    event = (await world.events("session-s"))[-1]
    assert isinstance(event, CompletionCancelled)
    assert (event.reason, event.text) == ("client_disconnected", "a")
    assert list(world.engine.cancelled) == [running.completion_id]


async def test_a_client_that_leaves_before_acceptance_leaves_no_trace() -> None:
    """A request that is cancelled while it waits for its turn is never recorded."""
    world = make_world(Script(before_delta=(held := Held(0))))
    first = world.manent.complete_chat.start(ask(user("one"), session_id="s"))
    await held.reached.wait()
    second = world.manent.complete_chat.start(ask(user("two"), session_id="s"))
    second.cancel("client_disconnected")
    held.released.set()
    await first.generated()
    with pytest.raises(CompletionCancelledError):
        await second.accepted()
    assert (await world.types("session-s")).count("CompletionRequested") == 1


@pytest.mark.parametrize("ending", ["success", "failure"])
async def test_cancelling_at_the_end_leaves_one_terminal_event(ending: str) -> None:
    """Cancel racing the end: whoever is first is recorded, once."""
    failure = EngineUnavailable("x") if ending == "failure" else None
    for steps in range(12):
        world = make_world(Script(pieces=("a", "b"), failure=failure, fails_at=2))
        running = world.manent.complete_chat.start(ask(user("hi"), session_id="s"))
        await running.accepted()
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel("client_disconnected")
        with suppress(DomainError):
            await running.generated()
        terminal = [
            t for t in await world.types("session-s") if t.startswith("Completion") and t != "CompletionRequested"
        ]
        assert len(terminal) == 1


async def test_a_second_request_waits_its_turn() -> None:
    """Two requests at once are answered one after the other, and the second sees the first's answer."""
    world = make_world(Script(pieces=("ok",)))
    both = [world.manent.complete_chat.start(ask(user(text), session_id="s")) for text in ("one", "two")]
    for running in both:
        await running.generated()
    assert [m.text for m in world.engine.rendered[-1]] == ["one", "ok", "two"]


async def test_who_leaves_the_queue_frees_its_place() -> None:
    """Clients that vanish while they wait do not keep others out."""
    world = make_world(Script(before_delta=(held := Held(0))), session_waiting_max=3)
    first = world.manent.complete_chat.start(ask(user("one"), session_id="s"))
    await held.reached.wait()
    ghosts = [world.manent.complete_chat.start(ask(user("ghost"), session_id="s")) for _ in range(3)]
    await asyncio.sleep(0)
    for ghost in ghosts:
        ghost.leave("client_disconnected")
    for ghost in ghosts:
        with pytest.raises(CompletionCancelledError):
            await ghost.accepted()
    last = world.manent.complete_chat.start(ask(user("two"), session_id="s"))
    held.released.set()
    await last.generated()
    await first.generated()
    assert "ghost" not in [m.text for m in world.engine.rendered[-1]]


async def test_waiting_for_a_turn_is_bounded_in_time_and_number() -> None:
    """Who waits too long, or comes when too many wait, is told that the session is busy."""
    world = make_world(Script(before_delta=(held := Held(0))), session_wait_s=0.05, session_waiting_max=1)
    first = world.manent.complete_chat.start(ask(user("one"), session_id="s"))
    await held.reached.wait()
    second = world.manent.complete_chat.start(ask(user("two"), session_id="s"))
    await asyncio.sleep(0)
    third = world.manent.complete_chat.start(ask(user("three"), session_id="s"))
    with pytest.raises(SessionBusy, match="waiting"):
        await third.accepted()
    with pytest.raises(SessionBusy, match="still open"):
        await second.accepted()
    held.released.set()
    await first.generated()


async def test_a_conflicting_writer_is_retried() -> None:
    """Another node's append between reading and writing costs a second look, not the request."""
    world = make_world()
    original = world.engine.render

    async def render_and_interfere(model_id: str, messages: list[Message], **more: Any) -> object:
        world.engine.render = original  # type: ignore[method-assign]  # once
        context_events: list[DomainEvent] = [started(), said("user", "elsewhere")]
        await world.store.append("session-s", context_events, expected_version=0, context=CONTEXT)
        return await original(model_id, messages, **more)

    world.engine.render = render_and_interfere  # type: ignore[method-assign, assignment]  # interferes once
    await answer(world, ask(user("hi"), session_id="s"))
    assert [m.text for m in world.engine.rendered[-1]] == ["elsewhere", "hi"]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (ask(user("hi"), session_id="theirs"), SessionNotFound),
        (ask(user("hi"), session_id="gone"), SessionClosed),
        (ask(user("x"), assistant("y"), session_id="mine", session_mode=SessionMode.STRICT), HistoryConflict),
        (ask(user("word " * 5000), session_id="mine"), ContextLengthExceeded),
        (ask(user("hi"), parameters=RequestedParameters(max_tokens=5000)), ContextLengthExceeded),
    ],
    ids=["somebody else's", "deleted", "departs", "too long", "wants too much"],
)
async def test_a_refused_request_records_nothing(command: ChatCommand, error: type[DomainError]) -> None:
    """A refusal is told at once and leaves the log as it was."""
    world = make_world()
    await answer(world, ask(user("hi"), session_id="theirs", principal=BOB))
    await answer(world, ask(user("hi"), session_id="mine"))
    await answer(world, ask(user("hi"), session_id="gone"))
    await world.manent.manage_sessions.delete(command.principal, "gone", request_id=None)
    before = len(await world.store.query(EventFilter()))
    with pytest.raises(error):
        await world.manent.complete_chat.start(command).accepted()
    assert len(await world.store.query(EventFilter())) == before


async def test_an_unknown_model_is_refused_before_anything_else() -> None:
    """No session is started for a model that does not exist."""
    world = make_world()
    command = ChatCommand(
        principal=ask().principal,
        model="gpt-9",
        messages=(user("hi"),),
        parameters=RequestedParameters(),
        session_id="s",
    )
    with pytest.raises(ModelNotFound):
        await world.manent.complete_chat.start(command).accepted()
    assert await world.types("session-s") == []


async def test_truncation_leaves_out_the_oldest_and_says_so() -> None:
    """With truncation 'auto' a long history is answered; the log names what the model did not see."""
    world = make_world(Script(pieces=("ok",)))
    for number in range(4):
        await answer(world, ask(user(f"{number} " + "word " * 900), session_id="s"))
    command = ask(user("4 " + "word " * 900), session_id="s", truncation=Truncation.AUTO)
    await answer(world, command)
    event = [event for event in await world.events("session-s") if isinstance(event, CompletionRequested)][-1]
    assert event.context is not None
    assert event.context.dropped is not None
    assert event.context.dropped.count + len(event.context.message_ids) == 9
    assert event.prompt_tokens + event.parameters.max_tokens <= 4096
    assert world.engine.rendered[-1][-1].text.startswith("4 ")


async def test_deleting_a_session_cancels_what_runs_in_it() -> None:
    """The running completion is closed as cancelled, then the session is."""
    world = make_world(Script(before_delta=(held := Held(1))))
    running = world.manent.complete_chat.start(ask(user("hi"), session_id="s"))
    await held.reached.wait()
    await world.manent.manage_sessions.delete(ask().principal, "s", request_id=None)
    assert (await world.types("session-s"))[-2:] == ["CompletionCancelled", "SessionDeleted"]
    with pytest.raises(CompletionCancelledError):
        await running.generated()


async def test_draining_finishes_what_runs_and_refuses_what_comes() -> None:
    """A drain waits for completions within its bound and accepts nothing new."""
    world = make_world(Script(before_delta=(held := Held(1))))
    running = world.manent.complete_chat.start(ask(user("hi"), session_id="s"))
    await held.reached.wait()
    drain = asyncio.create_task(world.manent.live.drain(finish_s=5, close_s=1))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        world.manent.complete_chat.start(ask(user("too late")))
    held.released.set()
    assert await drain == 0
    assert (await running.generated()).text is not None


async def test_a_drain_that_runs_out_of_time_cancels() -> None:
    """What does not finish within the bound is closed as cancelled by the shutdown."""
    world = make_world(Script(before_delta=(held := Held(1))))
    running = world.manent.complete_chat.start(ask(user("hi"), session_id="s"))
    await held.reached.wait()
    assert await world.manent.live.drain(finish_s=0.01, close_s=1) == 0
    event = (await world.events("session-s"))[-1]
    assert isinstance(event, CompletionCancelled)
    assert event.reason == "shutting_down"
    with pytest.raises(CompletionCancelledError):
        await running.generated()


@pytest.mark.parametrize("stream_id", ["session-s", "completion-c1"])
async def test_start_up_closes_what_a_crash_left_open(stream_id: str) -> None:
    """Open completions are closed as interrupted, once, in a session or alone."""
    world = make_world()
    events: list[DomainEvent] = (
        [requested("c1")] if stream_id.startswith("completion") else [started(), said("user", "hi"), requested("c1")]
    )
    await world.store.append(stream_id, events, expected_version=0, context=CONTEXT)
    assert await world.manent.close_interrupted.run() == 1
    assert await world.manent.close_interrupted.run() == 0
    last = (await world.events(stream_id))[-1]
    assert isinstance(last, CompletionFailed)
    assert last.code == "interrupted"


async def test_a_system_prompt_given_later_is_what_the_model_sees() -> None:
    """Replacing the system prompt changes the next prompt and keeps the turns."""
    world = make_world(Script(pieces=("ok",)))
    await answer(world, ask(system("old"), user("one"), session_id="s"))
    await answer(world, ask(system("new"), user("two"), session_id="s"))
    assert [m.text for m in world.engine.rendered[-1]] == ["new", "one", "ok", "two"]


async def test_two_messages_with_equal_words_are_two_messages() -> None:
    """Ids, not words, tell messages apart in the log."""
    world = make_world(Script(pieces=("ok",)))
    first = message("user", "same", "msg_1")
    second = message("user", "same", "msg_2")
    await answer(world, ask(first, session_id="s"))
    await answer(world, ask(second, session_id="s"))
    assert [m.message_id for m in world.engine.rendered[-1] if m.text == "same"] == ["msg_1", "msg_2"]


async def test_a_full_queue_refuses_before_anything_is_recorded() -> None:
    """Overload costs no event: the request is refused, not accepted and failed."""
    world = make_world()
    world.engine.admission["scripted"] = Admission("scripted", AdmissionLimits(in_flight_max=0))
    with pytest.raises(EngineBusy):
        await world.manent.complete_chat.start(ask(user("hi"), session_id="s")).accepted()
    assert await world.store.query(EventFilter()) == []
