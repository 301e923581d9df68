"""How far a rerun is, as the log of its session says."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.events import CompletionGenerated, CompletionRequested
from manent.domain.ports import EventStore
from manent.domain.replay_events import RerunEnded, RerunStarted
from manent.domain.usecases.stream_records import stream_records


@dataclass(slots=True, kw_only=True)
class RerunProgress:
    """What the events of a session's stream say of its rerun; ``completion_id`` is the last that was requested."""

    started: RerunStarted | None = None
    ended: RerunEnded | None = None
    turns_done: int = 0
    completion_id: str | None = None


async def read_progress(store: EventStore, tenant: str, stream_id: str) -> RerunProgress:
    """Read the stream to its end; its rerun's completions carry the rerun's id."""
    progress = RerunProgress()
    async for recorded in stream_records(store, tenant, stream_id):
        event = recorded.event
        if isinstance(event, RerunStarted):
            progress.started = event
        elif isinstance(event, RerunEnded):
            progress.ended = event
        elif progress.started is not None and recorded.header.correlation_id == progress.started.rerun_id:
            progress.turns_done += isinstance(event, CompletionGenerated)
            if isinstance(event, CompletionRequested):
                progress.completion_id = event.completion_id
    return progress
