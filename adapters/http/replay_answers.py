"""What several answers about replays have in common on the wire."""

from __future__ import annotations

from typing import Any

from manent.adapters.http.session_messages import message_answer
from manent.adapters.http.wire_replay import Sampling, SeenMessage
from manent.adapters.http.wire_responses import ForkOf
from manent.domain.generation import SamplingParameters
from manent.domain.messages import Message
from manent.domain.replay_events import Fork


def fork_answer(fork: Fork | None) -> ForkOf | None:
    """Where something branched off."""
    return None if fork is None else ForkOf(session_id=fork.session_id, version=fork.version)


def sampling_answer(parameters: SamplingParameters) -> Sampling:
    """Effective parameters."""
    return Sampling(
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        max_tokens=parameters.max_tokens,
        seed=parameters.seed,
        stop=list(parameters.stop),
    )


def seen_answer(message: Message) -> SeenMessage:
    """A message with all that a model sees of it."""
    return SeenMessage(
        **message_answer(message).model_dump(),
        tool_calls=tool_calls_answer(message),
        tool_call_id=message.tool_call_id,
    )


def tool_calls_answer(message: Message) -> list[dict[str, Any]] | None:
    """The message's tool calls as OpenAI has them; None where there are none."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    return calls or None
