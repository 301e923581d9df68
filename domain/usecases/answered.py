"""Which completion generated a message, and how: what the log says of answers, found by their messages' ids."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from manent.domain.events import CompletionGenerated, CompletionRequested, session_stream
from manent.domain.generation import FinishReason, Provenance, SamplingParameters, Timings, Truncation, Usage
from manent.domain.messages import Message
from manent.domain.ports import EventStore
from manent.domain.usecases.lineage import Segment
from manent.domain.usecases.stream_records import stream_records


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A completion that ended well, without its words."""

    completion_id: str
    model_id: str
    parameters: SamplingParameters
    truncation: Truncation
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    provenance: Provenance
    requested_at_us: int
    generated_at_us: int
    instructions: Message | None = None


async def answered(
    store: EventStore, tenant: str, segments: Sequence[Segment], message_ids: Collection[str]
) -> dict[str, Answered]:
    """The completions that generated those of ``message_ids`` that were generated.

    ``segments`` are those of the conversation, oldest first. They are read from the youngest on, in pages, until all
    are found: messages that clients brought never are.
    """
    found: dict[str, Answered] = {}
    for segment in reversed(segments):
        if len(found) == len(message_ids):
            break
        await _search(store, tenant, segment, message_ids, found)
    return found


async def _search(
    store: EventStore, tenant: str, segment: Segment, wanted: Collection[str], found: dict[str, Answered]
) -> None:
    """A session has one open completion at a time, so that each ending belongs to the request before it."""
    requested: CompletionRequested | None = None
    stream_id = session_stream(segment.session_id)
    async for recorded in stream_records(store, tenant, stream_id, max_version=segment.version):
        match recorded.event:
            case CompletionRequested() as event:
                requested = event
            case CompletionGenerated() as event if event.message_id in wanted and requested is not None:
                found[event.message_id] = _answered(requested, event)


def _answered(requested: CompletionRequested, generated: CompletionGenerated) -> Answered:
    return Answered(
        completion_id=requested.completion_id,
        model_id=requested.model_id,
        parameters=requested.parameters,
        truncation=Truncation.DISABLED if requested.context is None else requested.context.truncation,
        finish_reason=generated.finish_reason,
        usage=generated.usage,
        timings=generated.timings,
        provenance=generated.provenance,
        requested_at_us=requested.requested_at_us,
        generated_at_us=generated.generated_at_us,
        instructions=requested.instructions,
    )
