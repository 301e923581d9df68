"""Reruns of conversations with tools: calls and results are said as they were, answers are generated anew."""

from __future__ import annotations

from manent.adapters.inference.script import Script
from manent.domain.events import CompletionRequested
from manent.domain.generation import RequestedParameters, SamplingParameters
from manent.domain.messages import Message, Role, TextPart, ToolCall
from manent.domain.output_shape import OutputShape, Tool
from manent.domain.usecases.rerun_session import RerunStatus
from manent.domain.usecases.run_rerun import RerunCommand
from tests.support.conversation import ANN, user
from tests.support.manent import World, ask, make_world
from tests.support.replays import ended, folded

SHAPE = OutputShape(tools=(Tool(name="f", description="does f", parameters='{"type":"object"}', strict=True),))
CALL = ToolCall(id="", name="f", arguments="{}")
EVERYTHING = RequestedParameters(
    temperature=0.7,
    top_p=0.9,
    top_k=5,
    min_p=0.1,
    max_tokens=9,
    stop=("END",),
    stop_token_ids=(7,),
    seed=3,
    frequency_penalty=0.5,
    presence_penalty=0.25,
    repetition_penalty=1.1,
    logit_bias={4: 1.0},
    logprobs=True,
    top_logprobs=2,
    shape=SHAPE,
)


async def said(world: World, *messages: Message, pieces: tuple[str | ToolCall, ...]) -> tuple[ToolCall, ...]:
    """A turn of the session s with tools; the calls of its answer."""
    world.engine.script = Script(pieces=pieces)
    command = ask(*messages, session_id="s", parameters=EVERYTHING)
    return (await world.manent.complete_chat.start(command).generated()).tool_calls


async def parameters_of(world: World, session_id: str) -> list[SamplingParameters]:
    """Of the completions of a session."""
    events = await world.events(f"session-{session_id}")
    return [event.parameters for event in events if isinstance(event, CompletionRequested)]


def result(call: ToolCall, text: str) -> Message:
    """A tool's result."""
    return Message(message_id=f"r-{text}", role=Role.TOOL, content=(TextPart(text=text),), tool_call_id=call.id)


async def conversation(world: World) -> None:
    """A question, two calls with their results, an answer; another question and its answer."""
    first, second = await said(world, user("weather?"), pieces=(CALL, CALL))
    await said(world, result(first, "21"), result(second, "22"), pieces=("warm",))
    await said(world, user("thanks"), pieces=("welcome",))


async def rerun(world: World, *, from_version: int, pieces: tuple[str | ToolCall, ...]) -> RerunStatus:
    """A rerun into the session r with an engine that says this."""
    world.engine.script = Script(pieces=pieces)
    asked = RerunCommand(principal=ANN, session_id="s", from_version=from_version, rerun_session_id="r")
    await world.manent.replays.rerun.start(asked)
    return await ended(world)


async def test_answers_to_results_are_generated_again() -> None:
    """With the tools and every other parameter of then, behind the calls of then."""
    world = make_world()
    await conversation(world)
    status = await rerun(world, from_version=1, pieces=("new",))
    assert (status.status, status.turns_done) == ("completed", 2)
    then, now = await folded(world, "s"), await folded(world, "r")
    assert [message.role for message in now.messages] == [message.role for message in then.messages]
    assert [message.text for message in now.messages] == ["weather?", "", "21", "22", "new", "thanks", "new"]
    assert [message.tool_calls for message in now.messages] == [message.tool_calls for message in then.messages]
    assert [message.tool_call_id for message in now.messages] == [message.tool_call_id for message in then.messages]
    before, after = await parameters_of(world, "s"), await parameters_of(world, "r")
    assert after == before[1:]
    assert after[0].shape == SHAPE


async def test_a_rerun_may_begin_between_calls_and_results() -> None:
    """The call is in the past that is shared, its results are said, and the answer is new."""
    world = make_world()
    await conversation(world)
    types = await world.types("session-s")
    calling = [place for place, name in enumerate(types, start=1) if name == "MessageAppended"][1]
    assert (await rerun(world, from_version=calling, pieces=("new",))).status == "completed"
    assert [message.text for message in (await folded(world, "r")).messages][2:5] == ["21", "22", "new"]


async def test_an_answer_that_calls_where_words_were_ends_the_rerun() -> None:
    """Nobody is there to run a tool: what was said stays, and the end says why. A call at the very end is an answer."""
    world = make_world()
    await conversation(world)
    status = await rerun(world, from_version=1, pieces=("let me see", CALL))
    assert status.ended is not None
    assert (status.status, status.turns_done, status.ended.code) == ("failed", 1, "invalid_value")
    assert status.ended.reason == (
        "answer 1 of the rerun calls f, where the original did not, and nobody runs tools here; it ends there"
    )
    assert len((await folded(world, "r")).messages) == 5
    world = make_world()
    first = await said(world, user("weather?"), pieces=("sunny",))
    assert first == ()
    assert (await rerun(world, from_version=1, pieces=(CALL,))).status == "completed"
