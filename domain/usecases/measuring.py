"""What is told of a completion once it ended: read off the running completion, which knows its own times."""

from __future__ import annotations

from manent.domain.errors import CompletionCancelledError
from manent.domain.events import CompletionCancelled, CompletionGenerated
from manent.domain.telemetry import REQUEST, Operation, OperationEnded, Outcome
from manent.domain.usecases.accept_completion import ChatCommand
from manent.domain.usecases.running import RunningCompletion


def completion_ended(running: RunningCompletion, command: ChatCommand) -> OperationEnded:
    """How ``running`` ended, where its time went, and what it used."""
    outcome, request = running.outcome, running.request
    generated = outcome if isinstance(outcome, CompletionGenerated) else None
    return OperationEnded(
        operation=Operation.CHAT,
        outcome=_how(running),
        operation_id=running.completion_id,
        model_asked=command.model,
        model_id=running.place.model_id or None,
        began_s=running.timeline.began_s,
        ended_s=running.timeline.now_s(),
        laps=running.timeline.laps,
        error=_error(running),
        session_id=running.session_id,
        streamed=command.stream,
        usage=None if outcome is None else outcome.usage,
        timings=None if generated is None else generated.timings,
        cache=None if generated is None else generated.provenance.cache,
        batch_size_max=0 if generated is None else generated.provenance.batch_size_max,
        finish_reasons=() if generated is None else _finish_reasons(generated),
        parameters=None if request is None else request.parameters,
        scope=REQUEST.get(),
    )


def _how(running: RunningCompletion) -> Outcome:
    if running.error is None:
        return Outcome.REPEATED if running.outcome is None else Outcome.GENERATED
    if running.request is None:
        return Outcome.REFUSED
    cancelled = isinstance(running.outcome, CompletionCancelled) and isinstance(running.error, CompletionCancelledError)
    return Outcome.CANCELLED if cancelled else Outcome.FAILED


def _error(running: RunningCompletion) -> str | None:
    """The code, or of what was stopped on purpose the reason."""
    if isinstance(running.error, CompletionCancelledError) and running.stop_reason is not None:
        return running.stop_reason
    return None if running.error is None else running.error.code


def _finish_reasons(generated: CompletionGenerated) -> tuple[str, ...]:
    return (generated.finish_reason, *[other.finish_reason or "" for other in generated.alternatives])
