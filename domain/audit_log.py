"""The log as administrators of OpenAI's organizations know one: who may come, who tried, what was deleted.

Only events for which OpenAI has a type are entries; the others are read as events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from manent.domain.access_events import KeyChanged, KeyCreated, KeyRevoked, KeyRotated, LoginFailed, access_stream
from manent.domain.events import DomainEvent, SessionDeleted, completion_stream, session_stream
from manent.domain.records import EventHeader
from manent.domain.response_events import ResponseDeleted
from manent.domain.stored_events import StoredCompletionDeleted, stored_stream

MICROSECONDS = 1_000_000


class AuditType(StrEnum):
    """OpenAI's types of entries that happen here."""

    KEY_CREATED = "api_key.created"
    KEY_UPDATED = "api_key.updated"
    KEY_DELETED = "api_key.deleted"
    LOGIN_FAILED = "login.failed"
    RESOURCE_DELETED = "resource.deleted"


EVENTS_OF: Mapping[AuditType, Sequence[type[DomainEvent]]] = {
    AuditType.KEY_CREATED: (KeyCreated,),
    AuditType.KEY_UPDATED: (KeyChanged, KeyRotated),
    AuditType.KEY_DELETED: (KeyRevoked,),
    AuditType.LOGIN_FAILED: (LoginFailed,),
    AuditType.RESOURCE_DELETED: (SessionDeleted, ResponseDeleted, StoredCompletionDeleted),
}
"""The events that become entries of a type."""

TYPE_OF: Mapping[str, AuditType] = {
    event.__name__: audit_type for audit_type, events in EVENTS_OF.items() for event in events
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One entry; ``position`` is its event's in the log.

    ``resource_id`` is what it happened to, or the credential that was presented. ``scopes`` and ``expires_in_s`` are
    what a key was given, ``error`` a code and words. ``address`` is where somebody tried to come from, ``count`` how
    often. What was erased is None.
    """

    position: int
    at_us: int
    type: AuditType
    tenant: str
    actor: str
    resource_id: str | None = None
    scopes: tuple[str, ...] | None = None
    expires_in_s: int | None = None
    error: tuple[str, str] | None = None
    address: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries to read: of these types, by any of these actors, about any of these resources; None is any.

    Times are inclusive.
    """

    types: Sequence[AuditType] = field(default_factory=lambda: tuple(AuditType))
    actors: Sequence[str] | None = None
    resources: Sequence[str] | None = None
    since_us: int | None = None
    until_us: int | None = None


def audit_entry(header: EventHeader, event: DomainEvent) -> AuditEntry:
    """The entry of an event whose type is in ``TYPE_OF``."""
    scopes: tuple[str, ...] | None = None
    resource_id, expires_in_s, error, address, count = None, None, None, None, 1
    match event:
        case KeyCreated() | KeyChanged():
            resource_id, scopes = event.key_id, event.grant.scopes
            expires_in_s = _seconds_until(event.grant.expires_at_us, header)
        case KeyRotated():
            resource_id, expires_in_s = event.key_id, _seconds_until(event.expires_at_us, header)
        case KeyRevoked():
            resource_id = event.key_id
        case LoginFailed():
            resource_id, error = event.credential, ("invalid_api_key", event.reason)
            address, count = event.address, event.count
        case SessionDeleted():
            resource_id = event.session_id
        case ResponseDeleted():
            resource_id = event.response_id
        case StoredCompletionDeleted():
            resource_id = event.completion_id
        case _:  # erased, or of a later version: that it happened stands in its header
            pass
    return AuditEntry(
        position=header.position,
        at_us=header.recorded_at_us,
        type=TYPE_OF[header.type],
        tenant=header.tenant,
        actor=header.actor,
        resource_id=resource_id,
        scopes=scopes,
        expires_in_s=expires_in_s,
        error=error,
        address=address,
        count=count,
    )


def stream_of(event: type[DomainEvent], resource_id: str) -> str:
    """The stream in which an event of this type about ``resource_id`` would stand."""
    if event is SessionDeleted:
        return session_stream(resource_id)
    if event is ResponseDeleted:
        return completion_stream(resource_id)
    if event is StoredCompletionDeleted:
        return stored_stream(resource_id)
    return access_stream(resource_id)


def _seconds_until(moment_us: int | None, header: EventHeader) -> int | None:
    return None if moment_us is None else max(0, (moment_us - header.recorded_at_us) // MICROSECONDS)
