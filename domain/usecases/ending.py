"""Terminal events of a completion, with or without its content."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from manent.domain.commitments import SaltedDigest
from manent.domain.errors import CompletionCancelledError, DomainError
from manent.domain.events import CompletionCancelled, CompletionFailed, CompletionGenerated, CompletionRequested
from manent.domain.generation import FinishReason, GenerationResult, Provenance, TextDelta, TokenLogprobs, Usage
from manent.domain.messages import ToolCall
from manent.domain.output import Alternative, PartialChoice, PartialOutput
from manent.domain.output_pieces import PieceSizes, chat_sizes, sizes_of


class Ending:
    """Makes the terminal event of one completion."""

    def __init__(
        self,
        requested: CompletionRequested,
        output: PartialOutput,
        *,
        now_us: int,
        salt: Callable[[], bytes],
        record_content: bool,
        made_by: Provenance | None = None,
        deltas: Sequence[TextDelta] = (),
    ) -> None:
        self._requested = requested
        self._output = output
        self._now_us = now_us
        self._salt = salt
        self._content = record_content
        self._made_by = made_by
        self._deltas = deltas

    def generated(self, result: GenerationResult, *, message_id: str) -> CompletionGenerated:
        """It ended well."""
        return CompletionGenerated(
            completion_id=self._requested.completion_id,
            session_id=self._requested.session_id,
            model_id=self._requested.model_id,
            message_id=message_id,
            text=result.text if self._content else None,
            text_digest=SaltedDigest.of(self._output.choices[0].commitment, salt=self._salt()),
            token_ids=result.token_ids if self._content else None,
            finish_reason=result.finish_reason,
            usage=result.usage,
            timings=result.timings,
            provenance=result.provenance,
            generated_at_us=self._now_us,
            logprobs=self._logprobs(result.choices[0].logprobs),
            alternatives=self._alternatives([choice.finish_reason for choice in result.choices]),
            reasoning=self._reasoning(self._output.choices[0]),
            tool_calls=self._tool_calls(self._output.choices[0]),
            piece_sizes=self._piece_sizes(),
            stored=self._requested.stored,
            stop_sequence=result.choices[0].stop_sequence,
        )

    def failed(self, error: DomainError) -> tuple[CompletionFailed, DomainError]:
        """It ended in ``error``."""
        event = CompletionFailed(
            completion_id=self._requested.completion_id,
            session_id=self._requested.session_id,
            model_id=self._requested.model_id,
            code=error.code,
            reason=error.message,
            text=self._output.choices[0].text if self._content else None,
            token_ids=tuple(self._output.choices[0].token_ids) if self._content else None,
            usage=self._usage(),
            failed_at_us=self._now_us,
            alternatives=self._alternatives([None] * len(self._output.choices)),
            reasoning=self._reasoning(self._output.choices[0]),
            tool_calls=self._tool_calls(self._output.choices[0]),
            provenance=self._made_by,
            piece_sizes=self._piece_sizes(),
        )
        return event, error

    def cancelled(self, reason: str) -> tuple[CompletionCancelled, DomainError]:
        """It was stopped on purpose."""
        event = CompletionCancelled(
            completion_id=self._requested.completion_id,
            session_id=self._requested.session_id,
            model_id=self._requested.model_id,
            reason=reason,
            text=self._output.choices[0].text if self._content else None,
            token_ids=tuple(self._output.choices[0].token_ids) if self._content else None,
            usage=self._usage(),
            cancelled_at_us=self._now_us,
            alternatives=self._alternatives([None] * len(self._output.choices)),
            reasoning=self._reasoning(self._output.choices[0]),
            tool_calls=self._tool_calls(self._output.choices[0]),
            provenance=self._made_by,
            piece_sizes=self._piece_sizes(),
        )
        return event, CompletionCancelledError(f"the completion was cancelled ({reason})")

    def _alternatives(self, reasons: list[FinishReason | None]) -> tuple[Alternative, ...]:
        if len(self._output.choices) == 1:
            return ()
        return tuple(
            Alternative(
                index=index,
                finish_reason=reasons[index],
                text=choice.text if self._content else None,
                text_digest=SaltedDigest.of(choice.commitment, salt=self._salt()),
                token_ids=tuple(choice.token_ids) if self._content else None,
                logprobs=self._logprobs(tuple(choice.logprobs)),
                reasoning=self._reasoning(choice),
                tool_calls=self._tool_calls(choice),
            )
            for index, choice in enumerate(self._output.choices)
            if index > 0
        )

    def _reasoning(self, choice: PartialChoice) -> str | None:
        return (choice.reasoning or None) if self._content else None

    def _tool_calls(self, choice: PartialChoice) -> tuple[ToolCall, ...]:
        return tuple(choice.tool_calls) if self._content else ()

    def _logprobs(self, logprobs: tuple[TokenLogprobs, ...]) -> tuple[TokenLogprobs, ...] | None:
        return logprobs if self._content and self._requested.parameters.logprobs else None

    def _piece_sizes(self) -> PieceSizes | None:
        """How a response or a chat was streamed, so that its stream can be told again."""
        if not self._content:
            return None
        if self._requested.response is None:
            is_chat_stream = self._requested.stream and self._requested.prompt is None
            return chat_sizes(self._deltas) if is_chat_stream else None
        return sizes_of(self._deltas, with_logprobs=self._requested.parameters.logprobs)

    def _usage(self) -> Usage:
        return Usage(prompt_tokens=self._requested.prompt_tokens, completion_tokens=self._output.completion_tokens)
