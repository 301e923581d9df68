"""The look-up tables of stored completions, written in the transaction of their events: by owner, model and metadata.

A projection like that of the sessions (``session_index``), with its rows in the order of the completions' requests. A
row is ``open`` until its completion ends well; of one that does not, nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from manent.adapters.store.session_index import Change, Placed, Statement, grouped, pair_digest
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionRequested,
    DomainEvent,
    SessionDeleted,
    SessionExpired,
)
from manent.domain.stored_events import StoredCompletionChanged, StoredCompletionDeleted

OPEN, STORED, DELETED = "open", "stored", "deleted"

_STORE = (
    "INSERT INTO stored_completions (tenant, completion_id, position, owner, model_id, session_id, status, version) "
    "VALUES (?, ?, ?, ?, ?, ?, 'open', 0) ON CONFLICT (tenant, completion_id) DO NOTHING"
)
_END = (
    f"UPDATE stored_completions SET status = '{STORED}', ended_position = ? "  # noqa: S608 (our own names)
    f"WHERE tenant = ? AND completion_id = ? AND status = '{OPEN}'"
)
_END_METADATA = (
    f"UPDATE stored_metadata SET status = '{STORED}' WHERE tenant = ? AND completion_id = ? AND status = '{OPEN}'"  # noqa: S608 (our own names)
)
_DROP = "DELETE FROM stored_completions WHERE tenant = ? AND completion_id = ?"
_CHANGE = "UPDATE stored_completions SET version = ? WHERE tenant = ? AND completion_id = ?"
_HIDE = f"UPDATE stored_completions SET version = ?, status = '{DELETED}' WHERE tenant = ? AND completion_id = ?"  # noqa: S608 (our own names)
_FORGET_METADATA = "DELETE FROM stored_metadata WHERE tenant = ? AND completion_id = ?"
_ADD_METADATA = (
    "INSERT INTO stored_metadata (tenant, completion_id, key, value, pair, owner, status, position) "
    "SELECT tenant, completion_id, ?, ?, CAST(? AS BIGINT), owner, status, position FROM stored_completions "
    "WHERE tenant = ? AND completion_id = ? ON CONFLICT DO NOTHING"
)
_HIDE_SESSION = f"UPDATE stored_completions SET status = '{DELETED}' WHERE tenant = ? AND session_id = ?"  # noqa: S608 (our own names)
_FORGET_SESSION = (
    "DELETE FROM stored_metadata WHERE (tenant, completion_id) IN "
    "(SELECT tenant, completion_id FROM stored_completions WHERE tenant = ? AND session_id = ?)"
)
_ORDER = (
    _STORE,
    _END,
    _END_METADATA,
    _DROP,
    _CHANGE,
    _HIDE,
    _FORGET_METADATA,
    _ADD_METADATA,
    _HIDE_SESSION,
    _FORGET_SESSION,
)

StoredEvent = (
    CompletionRequested
    | CompletionGenerated
    | CompletionFailed
    | CompletionCancelled
    | StoredCompletionChanged
    | StoredCompletionDeleted
    | SessionExpired
    | SessionDeleted
)
"""The events that change the tables."""

STORED_TYPES = (
    "CompletionRequested",
    "CompletionGenerated",
    "CompletionFailed",
    "CompletionCancelled",
    "StoredCompletionChanged",
    "StoredCompletionDeleted",
)
"""The names in the log of those that are not the sessions' own."""


def concerns_stored(event: DomainEvent) -> bool:
    """Whether ``event`` changes the tables: most completions are not stored."""
    match event:
        case CompletionRequested() | CompletionGenerated():
            return event.stored or event.session_id is not None
        case CompletionFailed() | CompletionCancelled() | StoredCompletionChanged() | StoredCompletionDeleted():
            return True
        case SessionExpired() | SessionDeleted():
            return True
    return False


def stored_statements(events: Iterable[tuple[Placed, DomainEvent]]) -> list[Statement]:
    """What ``events`` change in the tables.

    Those of one session go in their order, since its end hides all of its completions.
    """
    return grouped(
        (
            ((placed.tenant, _place(event)), list(_changes(placed, event)))
            for placed, event in events
            if isinstance(event, StoredEvent) and concerns_stored(event)
        ),
        _ORDER,
    )


def _place(event: StoredEvent) -> str:
    if isinstance(event, StoredCompletionChanged | StoredCompletionDeleted) or event.session_id is None:
        return f"completion {event.completion_id}"
    return f"session {event.session_id}"


def _changes(placed: Placed, event: StoredEvent) -> Iterator[Change]:
    match event:
        case CompletionRequested():
            place = placed.tenant, event.completion_id
            yield _STORE, (*place, placed.position, placed.actor, event.model_id, event.session_id)
            yield from _metadata(place, event.metadata)
        case CompletionGenerated():
            yield _END, (placed.position, placed.tenant, event.completion_id)
            yield _END_METADATA, (placed.tenant, event.completion_id)
        case CompletionFailed() | CompletionCancelled():
            yield _DROP, (placed.tenant, event.completion_id)
            yield _FORGET_METADATA, (placed.tenant, event.completion_id)
        case StoredCompletionChanged():
            yield _CHANGE, (placed.stream_version, placed.tenant, event.completion_id)
            yield _FORGET_METADATA, (placed.tenant, event.completion_id)
            yield from _metadata((placed.tenant, event.completion_id), event.metadata)
        case StoredCompletionDeleted():
            yield _HIDE, (placed.stream_version, placed.tenant, event.completion_id)
            yield _FORGET_METADATA, (placed.tenant, event.completion_id)
        case SessionExpired() | SessionDeleted():
            yield _HIDE_SESSION, (placed.tenant, event.session_id)
            yield _FORGET_SESSION, (placed.tenant, event.session_id)


def _metadata(place: tuple[str, str], metadata: dict[str, str]) -> Iterator[Change]:
    for key, value in metadata.items():
        yield _ADD_METADATA, (key, value, pair_digest(key, value), *place)
