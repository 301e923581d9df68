"""A chat completion as the wire has it, out of its request and its end: the same for a new and a stored one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manent.adapters.http.answers import (
    finish_reasons,
    logprobs_answer,
    system_fingerprint,
    tool_calls_answer,
    usage_members,
)
from manent.domain.events import CompletionGenerated, CompletionRequested
from manent.domain.output import Alternative, PartialChoice


def completion_members(
    requested: CompletionRequested, generated: CompletionGenerated, choices: Sequence[PartialChoice]
) -> dict[str, Any]:
    """A ``ChatCompletion``, plain since each answer is one."""
    logprobs = requested.parameters.logprobs
    reasons = finish_reasons(generated)
    return {
        "id": requested.completion_id,
        "object": "chat.completion",
        "created": requested.requested_at_us // 1_000_000,
        "model": requested.model_id,
        "choices": [
            {
                "index": index,
                "message": _message(choice),
                "logprobs": logprobs_answer(choice.logprobs) if logprobs else None,
                "finish_reason": reason,
            }
            for index, (choice, reason) in enumerate(zip(choices, reasons, strict=True))
        ],
        "usage": usage_members([generated.usage]),
        "system_fingerprint": system_fingerprint(generated.provenance),
        "service_tier": "default",
        "session_id": requested.session_id,
    }


def recorded_choices(generated: CompletionGenerated) -> list[PartialChoice]:
    """What was recorded of each choice."""
    recorded: list[CompletionGenerated | Alternative] = [generated, *generated.alternatives]
    return [
        PartialChoice(
            pieces=[choice.text or ""],
            token_ids=list(choice.token_ids or ()),
            logprobs=list(choice.logprobs or ()),
            thoughts=[choice.reasoning] if choice.reasoning else [],
            tool_calls=list(choice.tool_calls),
        )
        for choice in recorded
    ]


def _message(choice: PartialChoice) -> dict[str, Any]:
    text, calls, reasoning = choice.text, tool_calls_answer(choice.tool_calls), choice.reasoning
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or (None if calls else ""),
        "refusal": None,
    }
    if reasoning:
        message |= {"reasoning": reasoning, "reasoning_content": reasoning}
    if calls:
        message["tool_calls"] = calls
    return message
