"""A response on the wire, out of what the log has of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from manent.adapters.http.response_items import Output
from manent.adapters.http.wire_response_answers import Response
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionOutcome,
    CompletionRequested,
)
from manent.domain.generation import FinishReason, Truncation, Usage
from manent.domain.output_pieces import Piece
from manent.domain.recorded_output import output_of
from manent.domain.responses import ResponseDetails, ResponseStatus
from manent.domain.usecases.read_responses import RecordedResponse, status_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseFrame:
    """What a response says from its beginning to its end."""

    requested: CompletionRequested
    details: ResponseDetails
    instructions: str | None
    truncation: Truncation

    @classmethod
    def recorded(cls, requested: CompletionRequested, details: ResponseDetails) -> ResponseFrame:
        """That of a response in the log."""
        instructions, context = requested.instructions, requested.context
        return cls(
            requested=requested,
            details=details,
            instructions=None if instructions is None else instructions.text,
            truncation=Truncation.DISABLED if context is None else context.truncation,
        )

    @property
    def response_id(self) -> str:
        """The response's id."""
        return self.requested.completion_id

    def queued(self) -> dict[str, Any]:
        """The response while it waits for its first words, in the background."""
        return self.in_progress() | {"status": ResponseStatus.QUEUED.value}

    def in_progress(self) -> dict[str, Any]:
        """The response while it is generated."""
        return self._answer(None, output=[], usage=None)

    def ended(self, outcome: CompletionOutcome, pieces: Sequence[Piece] | None = None) -> dict[str, Any]:
        """The response at its end; its output is that of ``pieces`` or else what the log has."""
        output = Output.of(self.response_id, output_of(outcome).pieces() if pieces is None else pieces)
        is_answer = isinstance(outcome, CompletionGenerated)
        if is_answer and not output.items:
            output.add(Piece())  # an answer of nothing is a message all the same
        whole = isinstance(outcome, CompletionGenerated) and outcome.finish_reason is not FinishReason.LENGTH
        return self._answer(outcome, output=output.answers(whole=whole), usage=outcome.usage)

    def _answer(
        self, outcome: CompletionOutcome | None, *, output: Sequence[dict[str, Any]], usage: Usage | None
    ) -> dict[str, Any]:
        requested, parameters = self.requested, self.requested.parameters
        session_id = requested.session_id
        in_conversation = self.details.in_conversation and session_id is not None
        status = status_of(outcome)
        completed = isinstance(outcome, CompletionGenerated) and status == "completed"
        echo = msgspec.json.decode(self.details.echo, type=dict[str, Any])
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": requested.requested_at_us // 1_000_000,
            "completed_at": outcome.generated_at_us // 1_000_000 if completed else None,  # type: ignore[union-attr]  # completed says so
            "status": status.value,
            "background": self.details.background,
            "error": _error(outcome),
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": self.instructions,
            "model": requested.model_id,
            "output": list(output),
            "previous_response_id": self.details.previous_response_id,
            "conversation": {"id": session_id} if in_conversation else None,
            "session_id": session_id,
            "metadata": dict(requested.metadata),
            "usage": None if usage is None else usage_answer(usage),
            "store": requested.response is not None,
            "temperature": parameters.temperature,
            "top_p": parameters.top_p,
            "top_logprobs": parameters.top_logprobs,
            "frequency_penalty": parameters.frequency_penalty,
            "presence_penalty": parameters.presence_penalty,
            "truncation": self.truncation.value,
            "service_tier": "default",
            "user": requested.user,
            **echo,
        }


def frame_of(found: RecordedResponse) -> ResponseFrame:
    """The frame of a response that was read."""
    return ResponseFrame.recorded(found.requested, found.details)


def response_answer(found: RecordedResponse) -> Response:
    """A response that was read, on the wire."""
    frame = frame_of(found)
    if found.outcome is not None:
        return Response.model_validate(frame.ended(found.outcome))
    waits = found.status is ResponseStatus.QUEUED
    return Response.model_validate(frame.queued() if waits else frame.in_progress())


def usage_answer(usage: Usage) -> dict[str, Any]:
    """Token counts in the words of responses."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _error(outcome: CompletionOutcome | None) -> dict[str, Any] | None:
    match outcome:
        case CompletionFailed():
            return {"code": "server_error", "message": f"{outcome.code}: {outcome.reason}"}
        case CompletionCancelled():
            return {"code": "server_error", "message": f"cancelled: {outcome.reason}"}
        case _:
            return None
