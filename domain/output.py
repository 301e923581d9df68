"""What a generation has produced so far, and how the log has its choices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from manent.domain.commitments import SaltedDigest
from manent.domain.generation import FinishReason, GeneratedChoice, TextDelta, TokenLogprobs
from manent.domain.messages import ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A further answer to the same request (``n`` above 1): choice ``index``, from 1.

    ``finish_reason`` is None where it had not ended, content is None where it is not recorded, and ``logprobs`` also
    where they were not asked for. ``text_digest`` commits to ``PartialChoice.commitment``.
    """

    index: int
    finish_reason: FinishReason | None
    text: str | None
    text_digest: SaltedDigest | None
    token_ids: tuple[int, ...] | None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(slots=True)
class PartialChoice:
    """What one choice has produced so far."""

    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)

    def add(self, delta: TextDelta) -> None:
        """Take the next delta in."""
        self.pieces.append(delta.text)
        self.token_ids += delta.token_ids
        if delta.logprobs:
            self.logprobs += delta.logprobs
        if delta.tool_calls:
            self.tool_calls += delta.tool_calls
        if delta.reasoning:
            self.thoughts.append(delta.reasoning)

    def finished(self, reason: FinishReason, stop_sequence: str | None) -> GeneratedChoice:
        """The choice, which ended for its reason and, where it did, by its stop sequence."""
        return GeneratedChoice(
            text=self.text,
            token_ids=tuple(self.token_ids),
            finish_reason=reason,
            logprobs=tuple(self.logprobs),
            reasoning=self.reasoning,
            tool_calls=tuple(self.tool_calls),
            stop_sequence=stop_sequence,
        )

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self.thoughts)

    @property
    def commitment(self) -> bytes:
        """The bytes that a digest of the answer is made of: its text and, if it has them, JSON of reasoning and calls.

        The JSON is ``[reasoning, [[id, name, arguments], …]]``.
        """
        said = self.text.encode()
        if self.thoughts or self.tool_calls:
            calls = [[call.id, call.name, call.arguments] for call in self.tool_calls]
            said += json.dumps([self.reasoning, calls]).encode()
        return said


class PartialOutput:
    """What a generation has produced so far; it grows by deltas and ends in a terminal event."""

    def __init__(self, choices: int = 1) -> None:
        self.choices = [PartialChoice() for _ in range(choices)]

    def add(self, delta: TextDelta) -> None:
        """Take the next delta in."""
        self.choices[delta.index].add(delta)

    def choices_finished(
        self, reasons: Sequence[FinishReason], stop_sequences: Sequence[str | None]
    ) -> tuple[GeneratedChoice, ...]:
        """The choices, each of which ended for its reason and, where one did, by its stop sequence."""
        ends = zip(self.choices, reasons, stop_sequences, strict=True)
        return tuple(choice.finished(reason, stop_sequence) for choice, reason, stop_sequence in ends)

    @property
    def completion_tokens(self) -> int:
        """The tokens of all choices."""
        return sum(len(choice.token_ids) for choice in self.choices)
