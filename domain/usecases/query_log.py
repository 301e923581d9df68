"""Reading the event log: filters and keyset pages, within the reader's tenant and rights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from manent.domain.access import Principal, Scope, has_scope, note_reading, one_owner
from manent.domain.errors import EventNotFound, InvalidValue, PermissionDenied
from manent.domain.events import COMPLETION_STREAMS, SESSION_STREAMS
from manent.domain.ports import EventStore
from manent.domain.records import EventFilter, LogEntry

LIMIT_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events in log order; ``has_more`` tells whether others follow."""

    events: Sequence[LogEntry]
    has_more: bool


class QueryLog:
    """What auditors ask of the log."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def page(
        self, principal: Principal, event_filter: EventFilter, *, after_position: int, limit: int
    ) -> EventPage:
        """At most ``limit`` matching events with positions above ``after_position``.

        Raises:
            PermissionDenied: ``principal`` has not the right (``within_rights``).
            InvalidValue: ``limit`` is not between 1 and 1000.
        """
        own = within_rights(principal, event_filter)
        if not 1 <= limit <= LIMIT_MAX:
            raise InvalidValue(f"limit is {limit}; it must be between 1 and {LIMIT_MAX}", param="limit")
        found = await self._store.query(own, after_position=after_position, limit=limit + 1)
        page = found[:limit]
        await note_log_reading(principal, page)
        return EventPage(events=page, has_more=len(found) > limit)

    async def event(self, principal: Principal, position: int) -> LogEntry:
        """The event at ``position``.

        Raises:
            PermissionDenied: ``principal`` has not the right (``within_rights``).
            EventNotFound: the log has not come so far, or ``principal`` may not read the event.
        """
        own = within_rights(principal, EventFilter(min_position=position, max_position=position))
        found = await self._store.query(own, limit=1)
        if not found:
            raise EventNotFound(f"no event was found at position {position}")
        await note_log_reading(principal, found)
        return found[0]


def within_rights(principal: Principal, event_filter: EventFilter) -> EventFilter:
    """``event_filter``, narrowed to what ``principal`` may read: its tenant's events, or only those that it caused.

    Raises:
        PermissionDenied: ``principal`` has neither the scope ``audit`` nor ``events:read``, or asks for others' events
            with the latter.
    """
    if has_scope(principal, Scope.AUDIT):
        return replace(event_filter, tenant=principal.tenant)
    if not has_scope(principal, Scope.EVENTS_READ):
        raise PermissionDenied("reading the event log needs the scope 'audit', or 'events:read' for one's own events")
    if event_filter.actor not in {None, principal.subject}:
        raise PermissionDenied("the events of others are read with the scope 'audit'", param="actor")
    return replace(event_filter, tenant=principal.tenant, actor=principal.subject)


async def note_log_reading(principal: Principal, page: Sequence[LogEntry]) -> None:
    """Have it recorded where a page tells of others' conversations; what happens to models and keys is nobody's."""
    others = [
        entry.header
        for entry in page
        if entry.header.actor != principal.subject
        and entry.header.stream_id.startswith((SESSION_STREAMS, COMPLETION_STREAMS))
    ]
    if others:
        resource = f"log {others[0].position} to {others[-1].position}"
        owner = one_owner(header.actor for header in others)
        await note_reading(principal, resource=resource, owner=owner, count=len(others))
