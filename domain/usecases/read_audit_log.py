"""Reading the audit log: entries newest first, by keyset pages whose cost a long log does not raise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from manent.domain.access import Principal
from manent.domain.access_events import LoginFailed
from manent.domain.audit_log import EVENTS_OF, AuditEntry, AuditFilter, audit_entry, stream_of
from manent.domain.errors import InvalidValue
from manent.domain.events import DomainEvent
from manent.domain.ports import EventStore
from manent.domain.records import EventFilter, LogEntry
from manent.domain.transparency import require_audit
from manent.domain.usecases.query_log import note_log_reading

LIMIT_MAX = 100
LOOKUPS_MAX = 100
"""Most looks into the log that one page takes: one for each type of event, and each actor or resource."""

Decode = Callable[[LogEntry], DomainEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Entries, newest first; ``has_more`` tells whether others follow in the direction of reading."""

    entries: Sequence[AuditEntry]
    has_more: bool


class ReadAuditLog:
    """What auditors read in OpenAI's words."""

    def __init__(self, store: EventStore, decode: Decode) -> None:
        self._store = store
        self._decode = decode

    async def page(
        self, principal: Principal, wanted: AuditFilter, *, after: int | None, before: int | None, limit: int
    ) -> AuditPage:
        """At most ``limit`` entries below the position ``after`` and above ``before``.

        With ``before`` alone they are those nearest to it, so that one may page backwards.

        Raises:
            PermissionDenied: ``principal`` has not the scope ``audit``.
            InvalidValue: too many filters at once.
        """
        require_audit(principal)
        newest_first = before is None or after is not None
        bounds = EventFilter(
            tenant=principal.tenant,
            since_us=wanted.since_us,
            until_us=wanted.until_us,
            min_position=None if before is None else before + 1,
            max_position=None if after is None else after - 1,
        )
        filters = list(_filters(wanted, bounds))
        if len(filters) > LOOKUPS_MAX:
            raise InvalidValue(
                f"these filters take {len(filters)} looks into the log; at most {LOOKUPS_MAX} are taken for a page: "
                "ask for fewer actors, resources or types at once"
            )
        found: dict[int, LogEntry] = {}
        for one in filters:
            for entry in await self._store.query(one, limit=limit + 1, newest_first=newest_first):
                found[entry.header.position] = entry
        positions = sorted(found, reverse=newest_first)
        page = [found[position] for position in sorted(positions[:limit], reverse=True)]
        await note_log_reading(principal, page[::-1])
        return AuditPage(
            entries=[audit_entry(entry.header, self._decode(entry)) for entry in page],
            has_more=len(positions) > limit,
        )


def _filters(wanted: AuditFilter, bounds: EventFilter) -> Iterator[EventFilter]:
    """One filter for each type of event, actor and resource, each of which an index serves."""
    for event in (event for audit_type in dict.fromkeys(wanted.types) for event in EVENTS_OF[audit_type]):
        of_type = replace(bounds, type=event.__name__)
        for actor in (None,) if wanted.actors is None else dict.fromkeys(wanted.actors):
            if wanted.resources is None:
                yield replace(of_type, actor=actor)
            elif event is not LoginFailed:  # nothing happened to anything
                for resource_id in dict.fromkeys(wanted.resources):
                    yield replace(of_type, actor=actor, stream_id=stream_of(event, resource_id))
