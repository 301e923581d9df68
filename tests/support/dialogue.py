"""A script for agents: it calls a function, and once there is a result it answers with it; on certain words it acts."""

from __future__ import annotations

import asyncio

from manent.adapters.inference.script import Script, Thought
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.errors import GenerationFailed
from manent.domain.generation import GenerationRequest
from manent.domain.messages import Role, ToolCall

JSON = ('{"city"', ': "Paris"', ', "degrees"', ": 21}")
"""What is answered where a schema is asked for."""
ANSWER = "It is 21 degrees in Paris."
"""What is answered where the result of the call was "21 degrees"."""


async def slowly(_delta: int) -> None:
    """Take a moment for each word."""
    await asyncio.sleep(0.02)


def cued(words: str) -> Script | None:
    """What is done where these are the last words; None is nothing of its own."""
    match words:
        case "Fail.":
            return Script(failure=GenerationFailed("it is not meant to be"), fails_at=2)
        case "Think.":
            return Script(pieces=(Thought("let me "), Thought("see"), "So", " it is."))
        case "Take your time.":
            return Script(pieces=("a ",) * 40, before_delta=slowly)
    return None


def dialogue_engine() -> ScriptedEngine:
    """An engine that plays ``dialogue``."""
    engine = ScriptedEngine()
    engine.script = lambda request: dialogue(engine, request)
    return engine


def dialogue(engine: ScriptedEngine, request: GenerationRequest) -> Script:
    """The next turn: a call of the first function that may be called, the answer to its result, or words."""
    shape = request.parameters.shape
    last = engine.rendered[-1][-1]
    if (script := cued(last.text)) is not None:
        return script
    if last.role is Role.TOOL:
        return Script(pieces=("It is", f" {last.text}", " in Paris."))
    if shape is not None and shape.callable_tools:
        name = shape.callable_tools[0].name
        return Script(pieces=("Let me look. ", ToolCall(id="", name=name, arguments='{"location": "Paris"}')))
    return Script(pieces=JSON) if shape is not None and shape.format is not None else Script()
