"""Records of the log as the domain sees them: headers, entries, filters, and where an append landed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from manent.domain.errors import IdempotencyConflict
from manent.domain.events import DomainEvent
from manent.domain.made_often import made_often
from manent.domain.short_events import SessionStep


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class EventContext:
    """Who and what caused an append; it stands in the header of each of its events."""

    tenant: str
    actor: str
    request_id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHeader:
    """The hashed part of an event: exactly the members of the log format, in the order of their names."""

    actor: str
    causation_id: str | None
    correlation_id: str | None
    event_id: str
    log_id: str
    payload_digest: str
    position: int
    recorded_at_us: int
    request_id: str | None
    schema_version: int
    stream_id: str
    stream_version: int
    tenant: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """An event as the log keeps it: header, payload bytes (JSON) and their salt, both None once erased."""

    header: EventHeader
    payload: bytes | None
    salt: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event of a stream with its place there, decoded and brought to today's schema."""

    header: EventHeader
    event: DomainEvent


class StreamEvent(NamedTuple):
    """An event of a stream with no more of it and its header than a fold needs; a tuple, since folds read thousands."""

    stream_version: int
    event_id: str
    event: SessionStep


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events to read; every given field must match. Positions and times are inclusive.

    ``model_id`` matches the events that name a model: of completions, and of the model itself.
    """

    tenant: str | None = None
    stream_id: str | None = None
    type: str | None = None
    actor: str | None = None
    model_id: str | None = None
    request_id: str | None = None
    correlation_id: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    min_position: int | None = None
    max_position: int | None = None


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """Where an append landed: its last position in the log and its last version in the stream.

    ``repeated`` tells that an earlier append with the same idempotency key landed there, and this one wrote nothing.
    ``last_event_id`` is known to whoever wrote it.
    """

    position: int
    stream_version: int
    repeated: bool = False
    last_event_id: str = field(default="", compare=False)

    def as_repeated(self) -> Appended:
        """The same place, as the answer to a repetition."""
        return replace(self, repeated=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """A client's promise that equal keys mean the same wish.

    ``scope`` names whose key it is (tenant and subject); ``request_digest`` tells whether it is the same request.
    """

    scope: str
    key: str
    request_digest: str

    @property
    def place(self) -> tuple[str, str]:
        """What tells keys apart."""
        return self.scope, self.key

    def check_same_request(self, kept_digest: str) -> None:
        """Raise IdempotencyConflict unless the request that was kept with this key is this one."""
        if kept_digest != self.request_digest:
            raise IdempotencyConflict(
                f"the idempotency key {self.key!r} was used with another request before; a new request needs a new key"
            )


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCompletion:
    """A completion whose terminal event is missing: running, or interrupted by a crash."""

    tenant: str
    stream_id: str
    completion_id: str
