"""Finding sessions in memory: the same rows that a database keeps, one beside the other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from manent.adapters.store.session_index import IndexedEvent
from manent.domain.events import (
    DomainEvent,
    SessionDeleted,
    SessionExpired,
    SessionMetadataChanged,
    SessionStarted,
    session_stream,
)
from manent.domain.records import EventHeader, RecordedEvent
from manent.domain.session import SessionStatus
from manent.domain.session_list import DueSession, ListedSession, SessionFilter

Streams = Mapping[tuple[str, str], Sequence[RecordedEvent]]


@dataclass(slots=True)
class _Row:
    tenant: str
    started: SessionStarted
    position: int
    recorded_at_us: int
    metadata: dict[str, str]
    ttl_s: int | None
    expires_at_us: int | None
    status: SessionStatus = SessionStatus.OPEN
    expired_at_us: int | None = None


class MemorySessionDirectory:
    """Implements ``SessionDirectory`` over the streams of a ``MemoryEventStore``."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._rows: dict[tuple[str, str], _Row] = {}

    def take(self, header: EventHeader, event: DomainEvent) -> None:
        """Keep what ``event`` changes."""
        if not isinstance(event, IndexedEvent):
            return
        place = header.tenant, event.session_id
        if isinstance(event, SessionStarted):
            row = _Row(header.tenant, event, header.position, header.recorded_at_us, event.metadata, event.ttl_s, None)
            row.expires_at_us = _expiry(event.started_at_us, event.ttl_s)
            self._rows.setdefault(place, row)
        elif place in self._rows:
            _change(self._rows[place], event)

    async def page(
        self, wanted: SessionFilter, *, after_position: int | None, limit: int, descending: bool
    ) -> list[ListedSession]:
        """See ``SessionDirectory.page``."""
        await asyncio.sleep(0)
        rows = sorted(self._rows.values(), key=lambda row: row.position, reverse=descending)
        if after_position is not None:
            rows = [row for row in rows if (row.position < after_position) == descending]
            rows = [row for row in rows if row.position != after_position]
        return [self._listed(row) for row in rows if _matches(wanted, row)][:limit]

    async def find(self, tenant: str, session_id: str) -> ListedSession | None:
        """See ``SessionDirectory.find``."""
        await asyncio.sleep(0)
        row = self._rows.get((tenant, session_id))
        return None if row is None else self._listed(row)

    async def due(self, now_us: int, *, after: DueSession | None, limit: int) -> list[DueSession]:
        """See ``SessionDirectory.due``."""
        await asyncio.sleep(0)
        found = [
            DueSession(
                tenant=row.tenant,
                session_id=row.started.session_id,
                position=row.position,
                due_at_us=row.expires_at_us,
                ttl_s=row.ttl_s,
                changed_at_us=self._last(row).recorded_at_us,
            )
            for row in self._rows.values()
            if row.expires_at_us is not None and row.ttl_s is not None and row.expires_at_us <= now_us
        ]
        found.sort(key=lambda due: (due.due_at_us, due.position))
        passed = (-1, -1) if after is None else (after.due_at_us, after.position)
        return [due for due in found if (due.due_at_us, due.position) > passed][:limit]

    async def postpone(self, sessions: Sequence[tuple[DueSession, int]]) -> None:
        """See ``SessionDirectory.postpone``."""
        await asyncio.sleep(0)
        for due, next_us in sessions:
            row = self._rows[due.tenant, due.session_id]
            if row.expires_at_us == due.due_at_us:
                row.expires_at_us = next_us

    def _last(self, row: _Row) -> EventHeader:
        return self._streams[row.tenant, session_stream(row.started.session_id)][-1].header

    def _listed(self, row: _Row) -> ListedSession:
        last = self._last(row)
        return ListedSession(
            position=row.position,
            session_id=row.started.session_id,
            tenant=row.tenant,
            owner=row.started.owner,
            status=row.status,
            metadata=row.metadata,
            ttl_s=row.ttl_s,
            parent=row.started.parent,
            version=last.stream_version,
            started_at_us=row.started.started_at_us,
            changed_at_us=last.recorded_at_us,
            expired_at_us=row.expired_at_us,
        )


def _change(row: _Row, event: IndexedEvent) -> None:
    match event:
        case SessionMetadataChanged():
            row.metadata, row.ttl_s = event.metadata, event.ttl_s
            row.expires_at_us = _expiry(event.changed_at_us, event.ttl_s)
        case SessionExpired():
            row.status, row.expires_at_us, row.expired_at_us = SessionStatus.EXPIRED, None, event.expired_at_us
        case SessionDeleted():
            row.status, row.expires_at_us = SessionStatus.DELETED, None


def _matches(wanted: SessionFilter, row: _Row) -> bool:
    if (wanted.tenant, wanted.status) != (row.tenant, row.status):
        return False
    if wanted.owner not in {None, row.started.owner}:
        return False
    if wanted.since_us is not None and row.recorded_at_us < wanted.since_us:
        return False
    if wanted.before_us is not None and row.recorded_at_us >= wanted.before_us:
        return False
    return wanted.metadata.items() <= row.metadata.items()


def _expiry(used_at_us: int, ttl_s: int | None) -> int | None:
    return None if ttl_s is None else used_at_us + ttl_s * 1_000_000
