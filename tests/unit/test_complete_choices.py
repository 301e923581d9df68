"""Several choices, log probabilities, deadlines, and a wait for the model: what is recorded of such completions."""

from __future__ import annotations

import asyncio

import pytest

from manent.adapters.inference.admission import Admission, AdmissionLimits
from manent.adapters.inference.script import Script
from manent.domain.errors import CompletionCancelledError, DeadlineExceeded, InvalidValue
from manent.domain.events import CompletionFailed, CompletionRequested, DomainEvent
from manent.domain.generation import RequestedParameters
from manent.domain.records import EventFilter
from manent.domain.usecases.running import RunningCompletion
from tests.support.conversation import user
from tests.support.hooks import Held
from tests.support.manent import World, ask, make_world


async def test_who_leaves_while_waiting_for_the_model_was_never_accepted() -> None:
    """A client that disconnects then frees its place in the queue, and nothing is recorded."""
    world = make_world()
    world.engine.admission["scripted"] = Admission("scripted", AdmissionLimits(running_max=1, in_flight_max=2))
    async with world.engine.place("scripted"):
        waiting = world.manent.complete_chat.start(ask(user("hi")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.leave("client_disconnected")
        with pytest.raises(CompletionCancelledError):
            await waiting.accepted()
    assert world.engine.admission["scripted"].in_flight == 0
    assert await world.store.query(EventFilter()) == []


async def test_all_choices_are_recorded() -> None:
    """The first as the answer, the others beside it, each with its own commitment; usage counts them all."""
    world = make_world(Script(pieces=("Hel", "lo", "!")))
    asked = RequestedParameters(n=3, logprobs=True, top_logprobs=2)
    running = world.manent.complete_chat.start(ask(user("hi"), parameters=asked, store_content=True))
    generated = await running.generated()
    assert generated.text == "Hello!"
    assert [other.text for other in generated.alternatives] == ["lo!", "!"]
    assert [other.index for other in generated.alternatives] == [1, 2]
    assert all(other.text_digest is not None and other.text is not None for other in generated.alternatives)
    assert generated.usage.completion_tokens == 6
    assert [entry.chosen.token_bytes for entry in generated.logprobs or ()] == [b"Hel", b"lo", b"!"]
    assert all(len(entry.top) == 2 for entry in generated.logprobs or ())
    assert generated.alternatives[1].logprobs is not None


async def test_without_content_choices_are_digests() -> None:
    """Neither text nor token ids nor log probabilities: those are content."""
    world = make_world(Script(pieces=("Hel", "lo", "!")))
    asked = RequestedParameters(n=2, logprobs=True)
    generated = await world.manent.complete_chat.start(ask(user("hi"), parameters=asked)).generated()
    (other,) = generated.alternatives
    assert (generated.text, generated.logprobs, other.text, other.token_ids, other.logprobs) == (None,) * 5
    assert other.text_digest is not None
    assert other.text_digest.matches(b"lo!")


async def test_a_session_goes_on_with_one_answer() -> None:
    """n above 1 in a session is refused by name, and nothing is recorded."""
    world = make_world()
    asked = ask(user("hi"), session_id="s", parameters=RequestedParameters(n=2))
    with pytest.raises(InvalidValue) as caught:
        await world.manent.complete_chat.start(asked).accepted()
    assert caught.value.param == "n"
    assert await world.store.query(EventFilter()) == []


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (RequestedParameters(logit_bias={10**9 * 9: 1.0}), "logit_bias"),
        (RequestedParameters(stop_token_ids=(10**9 * 9,)), "stop_token_ids"),
    ],
)
async def test_a_token_that_the_model_does_not_have_is_refused(asked: RequestedParameters, param: str) -> None:
    """By name, before anything is recorded."""
    world = make_world()
    with pytest.raises(InvalidValue) as caught:
        await world.manent.complete_chat.start(ask(user("hi"), parameters=asked)).accepted()
    assert caught.value.param == param
    assert await world.store.query(EventFilter()) == []


async def test_a_deadline_ends_a_completion_as_a_failure() -> None:
    """What was generated until then is recorded with it, and its generation is cancelled."""
    world = make_world(Script(pieces=("Hel", "lo"), before_delta=Held(1)))
    running = world.manent.complete_chat.start(ask(user("hi"), timeout_s=0.05, store_content=True))
    with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
        await running.generated()
    requested, failed = await recorded(world, running)
    assert isinstance(requested, CompletionRequested)
    assert requested.timeout_s == 0.05
    assert isinstance(failed, CompletionFailed)
    assert (failed.code, failed.text) == ("deadline_exceeded", "Hel")
    assert list(world.engine.cancelled) == [running.completion_id]


async def test_a_deadline_also_ends_the_wait_for_a_place() -> None:
    """Then nothing was accepted, and nothing is recorded."""
    world = make_world()
    world.engine.admission["scripted"] = Admission("scripted", AdmissionLimits(running_max=1, in_flight_max=2))
    async with world.engine.place("scripted"):
        with pytest.raises(DeadlineExceeded):
            await world.manent.complete_chat.start(ask(user("hi"), timeout_s=0.02)).accepted()
    assert await world.store.query(EventFilter()) == []


async def test_the_servers_own_bound_holds_for_all() -> None:
    """A request may ask for less time than the server allows, and not for more."""
    world = make_world(timeout_max_s=0.05)
    assert await timeout_of(world, None) == 0.05
    assert await timeout_of(world, 3.0) == 0.05
    assert await timeout_of(world, 0.01) == 0.01


async def timeout_of(world: World, timeout_s: float | None) -> float | None:
    """The bound that was recorded of a request."""
    running = world.manent.complete_chat.start(ask(user("hi"), timeout_s=timeout_s))
    return (await running.accepted()).requested.timeout_s


async def recorded(world: World, running: RunningCompletion) -> list[DomainEvent]:
    """The events of a completion without a session."""
    return await world.events(f"completion-{running.completion_id}")
