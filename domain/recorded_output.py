"""What the end of a completion has of its output."""

from __future__ import annotations

from manent.domain.events import CompletionGenerated, CompletionOutcome
from manent.domain.output_pieces import RecordedOutput


def output_of(outcome: CompletionOutcome) -> RecordedOutput:
    """What a completion's end has of its (first choice's) output."""
    logprobs = outcome.logprobs if isinstance(outcome, CompletionGenerated) else None
    return RecordedOutput(
        text=outcome.text or "",
        reasoning=outcome.reasoning or "",
        tool_calls=outcome.tool_calls,
        logprobs=logprobs or (),
        sizes=outcome.piece_sizes,
    )
