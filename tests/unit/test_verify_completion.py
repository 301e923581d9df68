"""Completions verified: what is exact, where a rerun parts from the record, what cannot be replayed and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from manent.adapters.inference.script import Script, token_of
from manent.adapters.inference.scripted import SCRIPTED_PROVENANCE
from manent.domain.access import Principal
from manent.domain.admission import Priority
from manent.domain.errors import (
    CompletionNotFound,
    DeadlineExceeded,
    EngineBusy,
    EngineUnavailable,
    GenerationFailed,
    ModelLoadError,
)
from manent.domain.events import CompletionFailed, CompletionGenerated, CompletionRequested, ErasedEvent
from manent.domain.generation import Provenance, RequestedParameters
from manent.domain.usecases.running import RunningCompletion
from manent.domain.usecases.verify_completion import Verification, VerifyCommand
from manent.domain.verification import CompletionVerified, Difference, Obstacle, Verdict, differences
from tests.support.conversation import ANN, BOB, PROVENANCE, user
from tests.support.hooks import Held
from tests.support.manent import World, ask, make_world
from tests.support.replays import AUDITOR

PIECES = ("One", " two", " three", " four")
DETERMINISTIC = RequestedParameters(temperature=0.7, deterministic=True)


def started(world: World, *, parameters: RequestedParameters = DETERMINISTIC, **others: object) -> RunningCompletion:
    """A deterministic completion, recorded with its content."""
    return world.manent.complete_chat.start(
        ask(user("count"), parameters=parameters, **{"store_content": True, **others})  # type: ignore[arg-type]  # by name
    )


async def completed(world: World, **others: Any) -> CompletionGenerated:
    """The same, once it has ended."""
    return await started(world, **others).generated()


async def verified(world: World, completion_id: str, principal: Principal = ANN, **others: Any) -> Verification:
    """Verify it."""
    command = VerifyCommand(principal=principal, completion_id=completion_id, **others)
    return await world.manent.replays.verify.run(command)


async def test_a_deterministic_completion_is_alone_and_cold() -> None:
    """It holds the model for itself, looks into no prefix cache, and the log says so."""
    held = Held(1)
    world = make_world(Script(pieces=PIECES, before_delta=held))
    alone = started(world)
    await held.reached.wait()
    other = started(world, parameters=RequestedParameters())
    await asyncio.sleep(0.01)
    assert (world.engine.admission["scripted"].running, world.engine.admission["scripted"].waiting) == (1, 1)
    held.released.set()
    await alone.generated()
    await other.generated()
    first, second = world.engine.requests
    assert (first.parameters.deterministic, first.cache) == (True, None)
    assert (second.parameters.deterministic, second.cache is None) == (False, False)
    (requested, _) = await world.events(f"completion-{alone.completion_id}")
    assert isinstance(requested, CompletionRequested)
    assert requested.parameters.deterministic


async def test_nobody_has_the_model_alone_for_ever() -> None:
    """Beyond the bound the completion fails as any that is too late, and what it had said can be verified."""
    held = Held(2)
    world = make_world(Script(pieces=PIECES, before_delta=held), deterministic_max_s=0.05)
    running = started(world)
    with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
        await running.generated()
    (_, failed) = await world.events(f"completion-{running.completion_id}")
    assert isinstance(failed, CompletionFailed)
    assert failed.provenance == SCRIPTED_PROVENANCE
    world.engine.script = Script(pieces=PIECES)
    verification = await verified(world, running.completion_id)
    assert (verification.event.verdict, verification.event.partial) == (Verdict.EXACT, True)
    assert verification.event.compared_tokens == 2
    world.engine.script = Script(pieces=("One", " more"))
    assert (await verified(world, running.completion_id)).event.position == 1


@pytest.mark.parametrize("how", [{}, {"session_id": "s"}, {"parameters": replace(DETERMINISTIC, n=3)}])
async def test_the_same_again_is_exact(how: dict[str, Any]) -> None:
    """With and without a session, all choices; the rerun is the same request, after everybody else, and recorded."""
    world = make_world(Script(pieces=PIECES))
    generated = await completed(world, **how)
    verification = await verified(world, generated.completion_id, request_id="req")
    assert verification.event.verdict is Verdict.EXACT
    assert verification.event.compared_tokens == generated.usage.completion_tokens
    original, rerun = world.engine.requests
    assert replace(original, cache=None) == rerun
    (recorded,) = await world.store.read_stream("acme", f"verification-{generated.completion_id}")
    assert recorded.event == verification.event
    assert (recorded.header.actor, recorded.header.request_id) == ("ann", "req")
    assert (recorded.header.position, verification.event.verified_by) == (verification.position, "ann")


@pytest.mark.parametrize(
    ("pieces", "position", "recorded", "rerun"),
    [
        (("One", " two", " 3", " four"), 2, " three", " 3"),
        (PIECES[:2], 2, " three", None),
        ((*PIECES, " five"), 4, None, " five"),
    ],
    ids=["another token", "shorter", "longer"],
)
async def test_a_rerun_that_parts_from_the_record_is_shown_where(
    pieces: tuple[str, ...], position: int, recorded: str | None, rerun: str | None
) -> None:
    """The first token that differs: what it was, what it is, and how near the model's two best lay."""
    world = make_world(Script(pieces=PIECES))
    generated = await completed(world)
    world.engine.script = Script(pieces=pieces)
    verification = await verified(world, generated.completion_id)
    event, parted = verification.event, verification.divergence
    assert parted is not None
    assert (event.verdict, event.position, event.choice) == (Verdict.DIVERGED, position, 0)
    assert parted.recorded_token == (None if recorded is None else token_of(recorded))
    assert parted.rerun_token == (None if rerun is None else token_of(rerun))
    assert (parted.rerun_text, parted.logit_gap) == ((None, None) if rerun is None else (rerun, 1.0))
    assert event.logit_gap == parted.logit_gap


async def test_another_end_of_the_same_tokens_is_a_divergence() -> None:
    """Where length ended it then, and the end of the sequence now."""
    world = make_world(Script(pieces=PIECES))
    generated = await completed(world, parameters=replace(DETERMINISTIC, max_tokens=2))
    world.engine.script = Script(pieces=PIECES[:2])
    parted = (await verified(world, generated.completion_id)).divergence
    assert parted is not None
    assert (parted.position, parted.recorded_token, parted.rerun_token) == (2, None, None)


@pytest.mark.parametrize(
    ("how", "obstacle"),
    [
        ({"parameters": RequestedParameters()}, Obstacle.NOT_DETERMINISTIC),
        ({"parameters": RequestedParameters(), "session_id": "s"}, Obstacle.NOT_DETERMINISTIC),
        ({"store_content": False}, Obstacle.CONTENT_NOT_RECORDED),
    ],
)
async def test_what_was_never_deterministic_or_not_recorded_is_not_replayable(
    how: dict[str, Any], obstacle: Obstacle
) -> None:
    """The verdict is recorded as well, with the reason; no model is asked."""
    world = make_world(Script(pieces=PIECES))
    generated = await completed(world, **how)
    event = (await verified(world, generated.completion_id)).event
    assert (event.verdict, event.obstacle, event.provenance) == (Verdict.NOT_REPLAYABLE, obstacle, None)
    assert event.reason
    assert len(world.engine.requests) == 1


def _changed(**members: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.engine.provenance = replace(world.engine.provenance, **members)

    return change


def _without_the_model(world: World) -> None:
    async def render(*_: object, **__: object) -> None:
        raise ModelLoadError("its folder is missing")

    world.engine.render = render  # type: ignore[method-assign,assignment]  # as a runner that cannot be started


def _with_another_template(world: World) -> None:
    render = world.engine.render

    async def differently(model_id: str, messages: Any, *, shape: Any = None) -> Any:
        return await render(model_id, [*messages, user("more")], shape=shape)

    world.engine.render = differently  # type: ignore[method-assign]  # the same digests, other tokens


@pytest.mark.parametrize(
    ("change", "obstacle", "tolerable"),
    [
        (_changed(weights_digest="sha256:ff"), Obstacle.OTHER_WEIGHTS, False),
        (_changed(adapter_digest="sha256:ff", weights_digest="sha256:fe"), Obstacle.OTHER_ADAPTER, False),
        (_changed(tokenizer_digest="sha256:ff"), Obstacle.OTHER_TOKENIZER, False),
        (_changed(template_digest="sha256:ff"), Obstacle.OTHER_TEMPLATE, False),
        (_changed(device="gpu"), Obstacle.OTHER_DEVICE, True),
        (_changed(versions={"manent": "scripted", "mlx": "2"}), Obstacle.OTHER_VERSIONS, True),
        (_without_the_model, Obstacle.MODEL_UNUSABLE, False),
        (_with_another_template, Obstacle.OTHER_PROMPT, False),
    ],
    ids=lambda value: value.value if isinstance(value, Obstacle) else "",
)
async def test_what_is_not_as_it_was_is_named(
    change: Callable[[World], None], obstacle: Obstacle, *, tolerable: bool
) -> None:
    """Nothing is generated then; software and device may be looked past, and are told all the same."""
    world = make_world(Script(pieces=PIECES))
    generated = await completed(world)
    change(world)
    verification = await verified(world, generated.completion_id)
    assert (verification.event.verdict, verification.event.obstacle) == (Verdict.NOT_REPLAYABLE, obstacle)
    assert len(world.engine.requests) == 1
    in_spite = await verified(world, generated.completion_id, other_versions=True)
    assert in_spite.event.verdict is (Verdict.EXACT if tolerable else Verdict.NOT_REPLAYABLE)
    assert in_spite.changed == verification.changed
    assert await world.types(f"verification-{generated.completion_id}") == ["CompletionVerified"] * 2


async def test_what_has_not_ended_and_what_said_nothing_is_not_replayable() -> None:
    """While it runs, and where it failed before its first token."""
    held = Held(0)
    world = make_world(Script(pieces=PIECES, before_delta=held))
    running = started(world)
    await held.reached.wait()
    assert (await verified(world, running.completion_id)).event.obstacle is Obstacle.STILL_RUNNING
    held.released.set()
    await running.generated()
    world.engine.script = Script(failure=GenerationFailed("no"))
    failed = started(world)
    with pytest.raises(GenerationFailed):
        await failed.generated()
    assert (await verified(world, failed.completion_id)).event.obstacle is Obstacle.NOTHING_RECORDED


@pytest.mark.parametrize("session_id", [None, "s"])
async def test_what_was_erased_is_not_replayable(session_id: str | None) -> None:
    """Whether the request, a message or the answer is gone; only whoever may see it hears of it."""
    world = make_world(Script(pieces=PIECES))
    generated = await completed(world, session_id=session_id)
    stream = f"completion-{generated.completion_id}" if session_id is None else "session-s"
    events = world.store._streams["acme", stream]
    for index, recorded in enumerate(list(events)):
        if recorded.header.type in {"SessionStarted"} or (index == len(events) - 1 and session_id):
            continue
        events[index] = replace(recorded, event=ErasedEvent(type=recorded.header.type))
        event = (await verified(world, generated.completion_id, AUDITOR)).event
        assert (event.verdict, event.obstacle) == (Verdict.NOT_REPLAYABLE, Obstacle.ERASED), recorded.header.type
        with pytest.raises(CompletionNotFound):
            await verified(world, generated.completion_id, BOB)
        events[index] = recorded


async def test_who_may_not_read_a_completion_may_not_verify_it() -> None:
    """Another subject finds nothing, and an auditor's verification bears the auditor's name."""
    world = make_world(Script(pieces=PIECES))
    for how in ({}, {"session_id": "s"}, {"session_id": "t", "parameters": RequestedParameters()}):
        completion_id = (await completed(world, **how)).completion_id
        for principal, wanted in ((BOB, completion_id), (ANN, "chatcmpl-nothing")):
            with pytest.raises(CompletionNotFound):
                await verified(world, wanted, principal)
        assert (await verified(world, completion_id, AUDITOR)).event.verified_by == "eve"


async def test_a_rerun_waits_behind_others_and_is_bounded() -> None:
    """It is a batch that has the model alone; where there is no room, or it takes too long, nothing is recorded."""
    held = Held(1)
    world = make_world(Script(pieces=PIECES), deterministic_max_s=0.05)
    generated = await completed(world)
    place = world.engine.place
    asked: list[dict[str, Any]] = []

    def busy(_model: str, **how: Any) -> Any:
        asked.append(how)
        raise EngineBusy("full")

    world.engine.place = busy  # type: ignore[method-assign,assignment]  # a queue that is full
    with pytest.raises(EngineBusy):
        await verified(world, generated.completion_id)
    assert asked == [{"priority": Priority.BATCH, "alone": True}]
    world.engine.place = place  # type: ignore[method-assign]  # the original
    world.engine.script = Script(pieces=PIECES, before_delta=held)
    with pytest.raises(DeadlineExceeded):
        await verified(world, generated.completion_id)
    assert world.engine.admission["scripted"].in_flight == 0
    assert await world.events(f"verification-{generated.completion_id}") == []


async def test_a_runner_that_is_replaced_during_the_rerun_proves_nothing() -> None:
    """What generated is not what was checked: the client is to ask again, and nothing is recorded."""
    world = make_world(Script(pieces=PIECES))
    generated = await completed(world)

    async def replaced(_: int) -> None:
        world.engine.provenance = replace(world.engine.provenance, weights_digest="sha256:ff")

    world.engine.script = Script(pieces=PIECES, before_delta=replaced)
    with pytest.raises(EngineUnavailable, match="replaced"):
        await verified(world, generated.completion_id)
    assert await world.events(f"verification-{generated.completion_id}") == []


async def test_verifications_at_once_are_all_recorded() -> None:
    """Each behind the other, however many."""
    world = make_world(Script(pieces=PIECES))
    generated = await completed(world)
    found = await asyncio.gather(*(verified(world, generated.completion_id) for _ in range(5)))
    events = await world.events(f"verification-{generated.completion_id}")
    assert len(events) == len({one.position for one in found}) == 5
    assert all(isinstance(event, CompletionVerified) for event in events)


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ({}, {}, []),
        ({"versions": {"mlx": "1", "python": "3.11"}}, {"versions": {"mlx": "1", "python": "3.12"}}, []),
        ({"versions": {"mlx": "1"}}, {"versions": {"mlx": "1", "blas": "b"}}, [("blas", None, "b")]),
        ({"dtype": "float16"}, {}, [("dtype", "float16", "float32")]),
        ({"batch_sizes": {1: 2}, "batch_size_max": 2}, {"batch_size_max": 0}, []),
    ],
)
def test_differences_are_those_that_tokens_depend_on(
    then: dict[str, Any], now: dict[str, Any], expected: list[tuple[str, str | None, str | None]]
) -> None:
    """Python's version is none, and how something was evaluated is not what evaluated it."""

    def made(members: dict[str, Any]) -> Provenance:
        return replace(PROVENANCE, **members)

    found: tuple[Difference, ...] = differences(made(then), made(now))
    assert [(one.name, one.recorded, one.now) for one in found] == expected
