"""Reading the event log: filters and keyset pages, within the reader's tenant and rights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from manent.domain.access import Principal, Scope
from manent.domain.errors import EventNotFound, InvalidValue, PermissionDenied
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
            PermissionDenied: ``principal`` has not the scope ``audit``.
            InvalidValue: ``limit`` is not between 1 and 1000.
        """
        own = within_rights(principal, event_filter)
        if not 1 <= limit <= LIMIT_MAX:
            raise InvalidValue(f"limit is {limit}; it must be between 1 and {LIMIT_MAX}", param="limit")
        found = await self._store.query(own, after_position=after_position, limit=limit + 1)
        return EventPage(events=found[:limit], has_more=len(found) > limit)

    async def event(self, principal: Principal, position: int) -> LogEntry:
        """The event at ``position``.

        Raises:
            PermissionDenied: ``principal`` has not the scope ``audit``.
            EventNotFound: the log has not come so far, or the event is another tenant's.
        """
        own = within_rights(principal, EventFilter(min_position=position, max_position=position))
        found = await self._store.query(own, limit=1)
        if not found:
            raise EventNotFound(f"no event was found at position {position}")
        return found[0]


def within_rights(principal: Principal, event_filter: EventFilter) -> EventFilter:
    """``event_filter``, narrowed to what ``principal`` may read.

    Raises:
        PermissionDenied: ``principal`` has not the scope ``audit``.
    """
    if not principal.scopes & {Scope.AUDIT, Scope.ADMIN}:
        raise PermissionDenied("reading the event log needs the scope 'audit'")
    return replace(event_filter, tenant=principal.tenant)
