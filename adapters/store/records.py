"""From decided events to records of the log: encoded, salted, digested, numbered. Shared by all stores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from manent.adapters.store.codec import EncodedEvent, encode_event
from manent.domain.errors import EventTooLarge
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionRequested,
    DomainEvent,
)
from manent.domain.ports import Ids
from manent.domain.records import EventContext, EventHeader

PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
EVENTS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An event ready to be committed: everything but its place in the log."""

    event: DomainEvent
    encoded: EncodedEvent
    event_id: str
    salt: bytes
    payload_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the first of some drafts goes."""

    log_id: str
    position: int
    stream_version: int
    recorded_at_us: int


def draft_events(events: Sequence[DomainEvent], ids: Ids) -> list[Draft]:
    """Encode and digest ``events``; done before the database is touched, so that it holds no lock.

    Raises:
        EventTooLarge: a payload has more than 16 MiB, or there are more than 10,000 events.
    """
    if len(events) > EVENTS_MAX:
        raise EventTooLarge(f"{len(events)} events in one append; at most {EVENTS_MAX} are allowed")
    drafts = []
    for event in events:
        encoded = encode_event(event)
        if len(encoded.payload) > PAYLOAD_BYTES_MAX:
            raise EventTooLarge(
                f"a {encoded.type} of {len(encoded.payload)} bytes; at most {PAYLOAD_BYTES_MAX} are allowed"
            )
        salt = ids.salt()
        drafts.append(
            Draft(
                event=event,
                encoded=encoded,
                event_id=ids.new("evt_"),
                salt=salt,
                payload_digest=hashlib.sha256(salt + encoded.payload).hexdigest(),
            )
        )
    return drafts


def place_headers(drafts: Sequence[Draft], place: Place, stream_id: str, context: EventContext) -> list[EventHeader]:
    """The headers of ``drafts``, numbered from ``place`` on."""
    return [
        EventHeader(
            actor=context.actor,
            causation_id=context.causation_id,
            correlation_id=context.correlation_id,
            event_id=draft.event_id,
            log_id=place.log_id,
            payload_digest=draft.payload_digest,
            position=place.position + index,
            recorded_at_us=place.recorded_at_us,
            request_id=context.request_id,
            schema_version=draft.encoded.schema_version,
            stream_id=stream_id,
            stream_version=place.stream_version + index,
            tenant=context.tenant,
            type=draft.encoded.type,
        )
        for index, draft in enumerate(drafts)
    ]


def model_of(event: DomainEvent) -> str | None:
    """The model that ``event`` names, if it names one."""
    model_id: str | None = getattr(event, "model_id", None)
    return model_id


def opened_completions(events: Sequence[DomainEvent]) -> list[str]:
    """Ids of the completions that ``events`` open."""
    return [event.completion_id for event in events if isinstance(event, CompletionRequested)]


def closed_completions(events: Sequence[DomainEvent]) -> list[str]:
    """Ids of the completions that ``events`` close."""
    terminal = (CompletionGenerated, CompletionFailed, CompletionCancelled)
    return [event.completion_id for event in events if isinstance(event, terminal)]
