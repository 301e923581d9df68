"""From decided events to drafts of records: encoded, salted, digested; everything but a place. Shared by all stores."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from manent.adapters.store.codec import encode_event
from manent.domain.errors import EventTooLarge
from manent.domain.events import DomainEvent
from manent.domain.ports import Ids

PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
EVENTS_MAX = 10_000


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An event ready to be committed: everything but its place in the log."""

    event: DomainEvent
    type: str
    schema_version: int
    payload: bytes
    event_id: str
    salt: bytes
    payload_digest: str


def draft_events(events: Sequence[DomainEvent], ids: Ids) -> list[Draft]:
    """Encode and digest ``events``; done before the database is touched, so that it holds no lock.

    Raises:
        EventTooLarge: a payload has more than 16 MiB, or there are more than 10,000 events.
    """
    if len(events) > EVENTS_MAX:
        raise EventTooLarge(f"{len(events)} events in one append; at most {EVENTS_MAX} are allowed")
    drafts = []
    for event in events:
        name, schema_version, payload = encode_event(event)
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise EventTooLarge(f"a {name} of {len(payload)} bytes; at most {PAYLOAD_BYTES_MAX} are allowed")
        event_id, salt = ids.new("evt_"), ids.salt()
        digest = sha256(salt + payload).hexdigest()
        drafts.append(Draft(event, name, schema_version, payload, event_id, salt, digest))
    return drafts


def model_of(event: DomainEvent) -> str | None:
    """The model that ``event`` names, if it names one."""
    model_id: str | None = getattr(event, "model_id", None)
    return model_id
