"""Batches: requests in a file that are answered in the background, into files. What a batch is after its events.

The rules of its life: validating, then in progress or failed; in progress, then finalizing and completed or expired; at
any time before that, cancelling and cancelled. A worker has a batch by a ``BatchTaken`` of its own: what another one
still wants to record then conflicts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import reduce
from typing import Any

from manent.domain.access import Principal
from manent.domain.access_keys import known_scopes
from manent.domain.batch_events import (
    BatchCancelRequested,
    BatchCreated,
    BatchEnded,
    BatchEvent,
    BatchFinalizing,
    BatchLinesEnded,
    BatchMistake,
    BatchRefused,
    BatchTaken,
    BatchValidated,
)
from manent.domain.errors import DomainError, InvalidValue

BATCH_ID = re.compile(r"batch_[0-9A-Za-z_-]{1,64}")
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
WINDOW = "24h"
WINDOW_S = 24 * 3600
LINES_MAX = 50_000
MISTAKES_MAX = 100


class BatchStatus(StrEnum):
    """Where a batch is, in OpenAI's words."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


OVER = frozenset({BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


class BatchNotFound(DomainError):
    """There is no such batch, or it is somebody else's."""

    code = "batch_not_found"
    param = "batch_id"


class BatchIsOver(DomainError):
    """The batch has ended, or is about to: nothing is left to cancel."""

    code = "batch_ended"
    param = "batch_id"


class TooManyBatches(DomainError):
    """An owner has as many batches that have not ended as it may have."""

    code = "too_many_batches"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """How much of a file is written for sure."""

    chunks: int = 0
    size_bytes: int = 0

    def plus(self, chunks: int, size_bytes: int) -> Written:
        """With what was written behind it."""
        return Written(chunks=self.chunks + chunks, size_bytes=self.size_bytes + size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """A batch as its events left it; ``version`` is its stream's. Bit n of ``done`` says that line n is answered."""

    tenant: str
    created: BatchCreated
    status: BatchStatus = BatchStatus.VALIDATING
    version: int = 1
    worker: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    done: int = field(default=0, repr=False)
    output: Written = Written()
    errors: Written = Written()
    mistakes: tuple[BatchMistake, ...] = ()
    in_progress_at_us: int | None = None
    cancelling_at_us: int | None = None
    finalizing_at_us: int | None = None
    expired: bool = False
    ended_at_us: int | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None

    def is_done(self, line: int) -> bool:
        """Whether line ``line`` is answered."""
        return bool(self.done >> line & 1)

    def has_expired(self, now_us: int) -> bool:
        """Whether its window has closed."""
        return now_us >= self.created.expires_at_us

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in OVER

    @property
    def principal(self) -> Principal:
        """In whose name it works, as they were when they made it."""
        grant = self.created.grant
        return Principal(
            tenant=self.tenant,
            subject=self.created.owner,
            scopes=known_scopes(grant.scopes),
            credential_id=grant.credential_id,
            models=grant.models,
            limits=grant.limits,
        )


def evolve(tenant: str, state: BatchState | None, event: BatchEvent) -> BatchState | None:
    """The batch after ``event``; what happens to none leaves none."""
    if isinstance(event, BatchCreated):
        return BatchState(tenant=tenant, created=event)
    if state is None:
        return None
    return replace(state, version=state.version + 1, **_changes(state, event))


def _changes(state: BatchState, event: BatchEvent) -> dict[str, Any]:
    """What ``event`` changes of a batch that there is."""
    changes: dict[str, Any] = {}
    match event:
        case BatchTaken():
            changes = {"worker": event.worker}
        case BatchValidated():
            changes = {"status": BatchStatus.IN_PROGRESS, "total": event.total}
            changes["in_progress_at_us"] = event.validated_at_us
        case BatchRefused():
            changes = {"status": BatchStatus.FAILED, "mistakes": event.mistakes, "ended_at_us": event.refused_at_us}
        case BatchLinesEnded():
            changes = {
                "done": reduce(lambda done, line: done | 1 << line, event.lines, state.done),
                "completed": state.completed + event.completed,
                "failed": state.failed + len(event.lines) - event.completed,
                "output": state.output.plus(event.output_chunks, event.output_bytes),
                "errors": state.errors.plus(event.error_chunks, event.error_bytes),
            }
        case BatchCancelRequested():
            changes = {"status": BatchStatus.CANCELLING, "cancelling_at_us": event.cancelled_at_us}
        case BatchFinalizing():
            changes = {"status": BatchStatus.FINALIZING, "expired": event.expired}
            changes["finalizing_at_us"] = event.finalizing_at_us
        case BatchEnded():
            changes = {"status": BatchStatus(event.status), "done": 0, "ended_at_us": event.ended_at_us}
            changes |= {"output_file_id": event.output_file_id, "error_file_id": event.error_file_id}
            changes["mistakes"] = event.mistakes
    return changes


def decide_cancel(state: BatchState, *, by: str, now_us: int) -> list[BatchEvent]:
    """The events that call a batch off, and end it where no worker had it yet; none where it is called off already.

    Raises:
        BatchIsOver: it has ended, or every line is answered.
    """
    if state.status in {BatchStatus.CANCELLING, BatchStatus.CANCELLED}:
        return []
    if state.is_over or state.status is BatchStatus.FINALIZING:
        raise BatchIsOver(f"batch {state.created.batch_id} is {state.status}; there is nothing left to cancel")
    requested = BatchCancelRequested(batch_id=state.created.batch_id, cancelled_by=by, cancelled_at_us=now_us)
    if state.worker is not None:
        return [requested]
    return [requested, *decide_end(replace(state, status=BatchStatus.CANCELLING), now_us=now_us)]


def decide_validated(state: BatchState, *, total: int, now_us: int) -> list[BatchEvent]:
    """The event that lets the lines begin; none where the batch was called off meanwhile."""
    if state.status is not BatchStatus.VALIDATING:
        return []
    return [BatchValidated(batch_id=state.created.batch_id, total=total, validated_at_us=now_us)]


def decide_refuse(state: BatchState, mistakes: tuple[BatchMistake, ...], *, now_us: int) -> list[BatchEvent]:
    """The event that ends a batch whose input is wrong; none where it was called off, or has ended."""
    if state.is_over or state.status is BatchStatus.CANCELLING:
        return []
    return [BatchRefused(batch_id=state.created.batch_id, mistakes=mistakes, refused_at_us=now_us)]


def decide_finalize(state: BatchState, *, now_us: int) -> list[BatchEvent]:
    """The event behind which no line is tried; none where the batch was called off, which ends without it."""
    if state.status is not BatchStatus.IN_PROGRESS:
        return []
    left = state.completed + state.failed < state.total
    return [BatchFinalizing(batch_id=state.created.batch_id, expired=left, finalizing_at_us=now_us)]


def decide_end(state: BatchState, mistakes: tuple[BatchMistake, ...] = (), *, now_us: int) -> list[BatchEvent]:
    """The last event of a batch, which failed where there are ``mistakes``; none where it stands already."""
    if state.is_over:
        return []
    created, status = state.created, BatchStatus.COMPLETED
    if mistakes:
        status = BatchStatus.FAILED
    elif state.status is BatchStatus.CANCELLING:
        status = BatchStatus.CANCELLED
    elif state.expired:
        status = BatchStatus.EXPIRED
    return [
        BatchEnded(
            batch_id=created.batch_id,
            status=status.value,
            output_file_id=created.output_file_id if state.output.size_bytes else None,
            error_file_id=created.error_file_id if state.errors.size_bytes else None,
            mistakes=mistakes,
            ended_at_us=now_us,
        )
    ]


def check_endpoint(endpoint: str) -> None:
    """Raise InvalidValue unless batches may be for ``endpoint``."""
    if endpoint not in ENDPOINTS:
        raise InvalidValue(f"{endpoint!r:.100} has no batches; {', '.join(ENDPOINTS)} have", param="endpoint")


def check_window(window: str) -> None:
    """Raise InvalidValue unless a batch may have this window."""
    if window != WINDOW:
        raise InvalidValue(f"completion_window is {window!r:.80}; it must be {WINDOW!r}", param="completion_window")
