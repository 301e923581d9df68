"""Tools and reasoning through the use case: what is recorded, what the next turn sees, what is told again."""

from __future__ import annotations

from typing import Any

import pytest

from manent.adapters.inference.script import Script, Thought
from manent.domain.errors import InvalidValue
from manent.domain.events import CompletionGenerated, CompletionRequested
from manent.domain.generation import FinishReason, RequestedParameters
from manent.domain.messages import Message, Role, TextPart, ToolCall
from manent.domain.output_shape import FormatKind, OutputFormat, OutputShape, Tool
from manent.domain.usecases.accept_completion import ChatCommand
from tests.support.conversation import user
from tests.support.manent import World, ask, make_world

SHAPE = OutputShape(
    format=OutputFormat(kind=FormatKind.JSON_SCHEMA, definition='{"type":"object"}'),
    tools=(Tool(name="f", description="does f", parameters='{"type":"object"}', strict=True),),
)
CALLING = Script(pieces=(Thought("I should "), Thought("call."), ToolCall(id="", name="f", arguments="{}")))


def result(call_id: str) -> Message:
    """A tool's result."""
    return Message(message_id="r", role=Role.TOOL, content=(TextPart(text="21"),), tool_call_id=call_id)


async def answer(made: World, command: ChatCommand) -> CompletionGenerated:
    """Run a completion to its end."""
    return await made.manent.complete_chat.start(command).generated()


async def called(made: World, **members: Any) -> CompletionGenerated:
    """A completion that thinks, and then calls."""
    return await answer(made, ask(user("hi"), parameters=RequestedParameters(shape=SHAPE), **members))


async def test_calls_and_reasoning_are_part_of_the_session() -> None:
    """The event has them, the assistant's message has them, and the next prompt is made of it."""
    made = make_world(CALLING)
    generated = await called(made, session_id="s")
    (call,) = generated.tool_calls
    assert (generated.reasoning, generated.finish_reason) == ("I should call.", FinishReason.TOOL_CALLS)
    assert (call.name, call.id[:5], generated.usage.reasoning_tokens) == ("f", "call_", 2)
    with pytest.raises(InvalidValue, match="before the results"):
        await answer(made, ask(user("go on"), session_id="s"))
    made.engine.script = Script()
    await answer(made, ask(result(call.id), session_id="s"))
    said, seen, told = made.engine.rendered[-1]
    assert (said.text, seen.tool_calls, seen.reasoning, told.tool_call_id) == ("hi", (call,), "I should call.", call.id)


@pytest.mark.parametrize("stored", [True, False])
async def test_shapes_are_recorded_with_the_content(*, stored: bool) -> None:
    """Without content the log knows kinds and names, and a digest of all that was answered; the engine knows all."""
    made = make_world(CALLING)
    generated = await called(made, store_content=stored)
    requested, _ = await made.events(f"completion-{generated.completion_id}")
    assert isinstance(requested, CompletionRequested)
    assert requested.parameters.shape == (SHAPE if stored else SHAPE.without_content())
    assert made.engine.requests[-1].parameters.shape == SHAPE
    assert "does f" not in repr(SHAPE.without_content())
    assert (generated.tool_calls != ()) is (generated.reasoning is not None) is stored
