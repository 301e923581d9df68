"""Events to payload bytes and back: stable type names, schema versions, upcasters.

The names in ``EVENT_TYPES`` are what the log says; renaming a class does not change them. An upcaster is a pure
function from the payload of one schema version to that of the next, as plain dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec

from manent.domain import access_events as a
from manent.domain import events as e
from manent.domain import model_events as m
from manent.domain import replay_events as r
from manent.domain import response_events as t
from manent.domain import stored_events as s
from manent.domain import verification as v
from manent.domain import webhook_events as w
from manent.domain.errors import LogCorrupt
from manent.domain.records import EventHeader, LogEntry
from manent.domain.short_events import SHORT_CLASSES, SessionStep, in_short

JSON_ENCODING = "json"

EVENT_TYPES: Mapping[str, tuple[type[e.DomainEvent], int]] = {
    "SessionStarted": (e.SessionStarted, 1),
    "MessageAppended": (e.MessageAppended, 1),
    "SystemPromptReplaced": (e.SystemPromptReplaced, 1),
    "HistoryRevised": (e.HistoryRevised, 1),
    "CompletionRequested": (e.CompletionRequested, 2),
    "CompletionGenerated": (e.CompletionGenerated, 1),
    "CompletionFailed": (e.CompletionFailed, 1),
    "CompletionCancelled": (e.CompletionCancelled, 1),
    "SessionMetadataChanged": (e.SessionMetadataChanged, 1),
    "SessionExpired": (e.SessionExpired, 1),
    "SessionDeleted": (e.SessionDeleted, 1),
    "RerunStarted": (r.RerunStarted, 1),
    "RerunEnded": (r.RerunEnded, 1),
    "SessionImported": (r.SessionImported, 1),
    "ModelLoaded": (m.ModelLoaded, 1),
    "ModelUnloaded": (m.ModelUnloaded, 1),
    "ModelLoadFailed": (m.ModelLoadFailed, 1),
    "RunnerCrashed": (m.RunnerCrashed, 1),
    "ModelSuspended": (m.ModelSuspended, 1),
    "ModelPinChanged": (m.ModelPinChanged, 1),
    "CompletionVerified": (v.CompletionVerified, 1),
    "ResponseDeleted": (t.ResponseDeleted, 1),
    "ItemRemoved": (t.ItemRemoved, 1),
    "CancellationRequested": (t.CancellationRequested, 1),
    "KeyCreated": (a.KeyCreated, 1),
    "KeyChanged": (a.KeyChanged, 1),
    "KeyRotated": (a.KeyRotated, 1),
    "KeyRevoked": (a.KeyRevoked, 1),
    "AuditRead": (a.AuditRead, 1),
    "LoginFailed": (a.LoginFailed, 1),
    "StoredCompletionChanged": (s.StoredCompletionChanged, 1),
    "StoredCompletionDeleted": (s.StoredCompletionDeleted, 1),
    "WebhookCreated": (w.WebhookCreated, 1),
    "WebhookChanged": (w.WebhookChanged, 1),
    "WebhookSecretRotated": (w.WebhookSecretRotated, 1),
    "WebhookDeleted": (w.WebhookDeleted, 1),
    "WebhookDeliveryAbandoned": (w.WebhookDeliveryAbandoned, 1),
    "WebhookDeliveryRepeated": (w.WebhookDeliveryRepeated, 1),
}
_NAMES = {event_class: (name, version) for name, (event_class, version) in EVENT_TYPES.items()}

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


def _name_the_ends_of_what_was_dropped(fields: dict[str, Any]) -> dict[str, Any]:
    """CompletionRequested 1 listed the ids of all messages that were dropped: as many as the conversation is long."""
    context = fields["context"]
    if context is None:
        return fields
    ids = context["dropped_message_ids"]
    dropped = {"first_message_id": ids[0], "last_message_id": ids[-1], "count": len(ids)} if ids else None
    return {**fields, "context": {**context, "dropped": dropped}}


UPCASTERS: Mapping[tuple[str, int], Upcaster] = {("CompletionRequested", 1): _name_the_ends_of_what_was_dropped}


HeaderRow = tuple[str | int | None, ...]
"""The members of a header in the order of their names, which is that of ``EventHeader``."""

_HeaderMembers = msgspec.defstruct("_HeaderMembers", list(EventHeader.__dataclass_fields__))
_encode = msgspec.json.Encoder().encode


class EncodedEvent(NamedTuple):
    """An event as the log keeps it."""

    type: str
    schema_version: int
    payload: bytes


def encode_event(event: e.DomainEvent) -> EncodedEvent:
    """The type name, schema version and JSON payload of ``event``."""
    if isinstance(event, e.UnknownEvent):
        return EncodedEvent(event.type, event.schema_version, _encode(event.payload))
    name, version = _NAMES[type(event)]
    return EncodedEvent(name, version, _encode(event))


def decode_event(type_name: str, schema_version: int, payload: bytes | None) -> e.DomainEvent:
    """What a payload says, brought to today's schema; None is a payload that was destroyed.

    Raises:
        LogCorrupt: it is no JSON object, or lacks what its schema version promises.
    """
    if payload is None:
        return e.ErasedEvent(type=type_name)
    try:
        known = EVENT_TYPES.get(type_name)
        if known is not None and schema_version == known[1]:
            return _decoder(known[0]).decode(payload)  # type: ignore[arg-type]  # classes are hashable; one pass, as nearly all need
        fields: dict[str, Any] = msgspec.json.decode(payload, type=dict[str, Any])
        if known is None or schema_version > known[1]:
            return e.UnknownEvent(type=type_name, schema_version=schema_version, payload=fields)
        event_class, current = known
        for version in range(schema_version, current):
            fields = UPCASTERS[type_name, version](fields)
        return msgspec.convert(fields, type=event_class, str_keys=True)
    except (msgspec.MsgspecError, KeyError) as error:
        raise _damaged(type_name, schema_version, error) from error


def decode_step(type_name: str, schema_version: int, payload: bytes | None) -> SessionStep:
    """``in_short`` of what ``decode_event`` says, in a quarter of the time; members that no fold needs are not checked.

    Raises:
        LogCorrupt: it is no JSON object, or lacks what a fold needs.
    """
    decode = _STEP_DECODERS.get((type_name, schema_version))
    if decode is None or payload is None:  # one of an older version is upcast whole
        return in_short(decode_event(type_name, schema_version, payload))
    try:
        return decode(payload)
    except msgspec.MsgspecError as error:
        raise _damaged(type_name, schema_version, error) from error


def log_event(entry: LogEntry) -> e.DomainEvent:
    """What an entry of the log says; raises as ``decode_event``."""
    return decode_event(entry.header.type, entry.header.schema_version, entry.payload)


@cache
def _decoder(event_class: type[e.DomainEvent]) -> msgspec.json.Decoder[e.DomainEvent]:
    return msgspec.json.Decoder(event_class)


_STEP_DECODERS: Mapping[tuple[str, int], Callable[[bytes], SessionStep]] = {
    name_and_version: msgspec.json.Decoder(SHORT_CLASSES.get(event_class, event_class)).decode
    for event_class, name_and_version in _NAMES.items()
}


def _damaged(type_name: str, schema_version: int, error: Exception) -> LogCorrupt:
    return LogCorrupt(f"the payload of a {type_name} (schema version {schema_version}) is damaged: {error}")


def header_bytes(header: EventHeader) -> bytes:
    """The canonical bytes of a header (RFC 8785): sorted keys, no white space, UTF-8. They are what the tree hashes."""
    return _encode(header)


def header_row_bytes(row: HeaderRow) -> bytes:
    """``header_bytes`` of a row, without making the header."""
    return _encode(_HeaderMembers(*row))


def header_of(row: HeaderRow) -> EventHeader:
    """The header that a row holds."""
    return EventHeader(**dict(zip(EventHeader.__dataclass_fields__, row, strict=True)))  # type: ignore[arg-type]  # in their order
