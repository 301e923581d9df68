"""Finding stored completions in memory: the same rows that a database keeps."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from manent.adapters.store.stored_index import DELETED, OPEN, STORED, StoredEvent, concerns_stored
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionRequested,
    DomainEvent,
    SessionDeleted,
    SessionExpired,
)
from manent.domain.records import EventHeader
from manent.domain.stored_completions import StoredCompletion, StoredFilter
from manent.domain.stored_events import StoredCompletionChanged, StoredCompletionDeleted


@dataclass(slots=True)
class _Row:
    position: int
    owner: str
    requested: CompletionRequested
    metadata: dict[str, str]
    generated: CompletionGenerated | None = None
    status: str = OPEN
    version: int = 0


class MemoryStoredCompletions:
    """Implements ``StoredCompletionDirectory``."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}

    def take(self, header: EventHeader, event: DomainEvent) -> None:
        """Keep what ``event`` changes."""
        if not isinstance(event, StoredEvent) or not concerns_stored(event):
            return
        if isinstance(event, SessionExpired | SessionDeleted):
            for (tenant, _), row in self._rows.items():
                if tenant == header.tenant and row.requested.session_id == event.session_id:
                    row.status = DELETED
            return
        place = header.tenant, event.completion_id
        if isinstance(event, CompletionRequested):
            row = _Row(header.position, header.actor, event, dict(event.metadata))
            self._rows.setdefault(place, row)
        elif isinstance(event, CompletionFailed | CompletionCancelled):
            self._rows.pop(place, None)
        elif place in self._rows:
            _change(self._rows[place], header, event)

    async def page(
        self, wanted: StoredFilter, *, after_position: int | None, limit: int, descending: bool
    ) -> list[StoredCompletion]:
        """See ``StoredCompletionDirectory.page``."""
        await asyncio.sleep(0)
        rows = [row for (tenant, _), row in self._rows.items() if tenant == wanted.tenant and _matches(wanted, row)]
        rows.sort(key=lambda row: row.position, reverse=descending)
        if after_position is not None:
            rows = [row for row in rows if row.position != after_position]
            rows = [row for row in rows if (row.position < after_position) == descending]
        return [_stored(row) for row in rows[:limit]]

    async def find(self, tenant: str, completion_id: str) -> StoredCompletion | None:
        """See ``StoredCompletionDirectory.find``."""
        await asyncio.sleep(0)
        row = self._rows.get((tenant, completion_id))
        return None if row is None or row.status != STORED else _stored(row)

    async def place(self, tenant: str, owner: str, completion_id: str) -> int | None:
        """See ``StoredCompletionDirectory.place``."""
        await asyncio.sleep(0)
        row = self._rows.get((tenant, completion_id))
        return None if row is None or row.owner != owner or row.status == OPEN else row.position


def _change(
    row: _Row, header: EventHeader, event: CompletionGenerated | StoredCompletionChanged | StoredCompletionDeleted
) -> None:
    match event:
        case CompletionGenerated() if row.status == OPEN:
            row.generated, row.status = event, STORED
        case StoredCompletionChanged():
            row.metadata, row.version = dict(event.metadata), header.stream_version
        case StoredCompletionDeleted():
            row.status, row.version = DELETED, header.stream_version


def _matches(wanted: StoredFilter, row: _Row) -> bool:
    if row.status != STORED or row.owner != wanted.owner:
        return False
    return wanted.model_id in {None, row.requested.model_id} and wanted.metadata.items() <= row.metadata.items()


def _stored(row: _Row) -> StoredCompletion:
    if row.generated is None:
        raise AssertionError(f"{row.requested.completion_id} is shown before its end")
    return StoredCompletion(
        position=row.position,
        completion_id=row.requested.completion_id,
        owner=row.owner,
        metadata=row.metadata,
        version=row.version,
        requested=row.requested,
        generated=row.generated,
    )
