"""The look-up tables of files and batches, written in the transaction of their events.

A projection like that of the sessions (``session_index``), with its rows in the order of first events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from manent.adapters.store.session_index import Change, Placed, Statement, grouped
from manent.domain.batch_events import BatchCreated, BatchEnded, BatchRefused, FileAdded, FileDeleted
from manent.domain.events import DomainEvent

KEPT, DELETED = "kept", "deleted"
OPEN, OVER = "open", "over"

_ADD_FILE = (
    "INSERT INTO files (tenant, file_id, position, owner, purpose, size_bytes, status, expires_at_us) "
    "VALUES (?, ?, ?, ?, ?, ?, 'kept', ?) ON CONFLICT (tenant, file_id) DO NOTHING"
)
_END_FILE = f"UPDATE files SET status = '{DELETED}', expires_at_us = NULL WHERE tenant = ? AND file_id = ?"  # noqa: S608 (our own names)
_ADD_BATCH = (
    "INSERT INTO batches (tenant, batch_id, position, owner, status) "
    "VALUES (?, ?, ?, ?, 'open') ON CONFLICT (tenant, batch_id) DO NOTHING"
)
_END_BATCH = f"UPDATE batches SET status = '{OVER}' WHERE tenant = ? AND batch_id = ?"  # noqa: S608 (our own names)
_ORDER = (_ADD_FILE, _END_FILE, _ADD_BATCH, _END_BATCH)

WorkEvent = FileAdded | FileDeleted | BatchCreated | BatchRefused | BatchEnded
"""The events that change the tables."""

WORK_TYPES = ("FileAdded", "FileDeleted", "BatchCreated", "BatchRefused", "BatchEnded")
"""Their names in the log."""


def work_statements(events: Iterable[tuple[Placed, DomainEvent]]) -> list[Statement]:
    """What ``events`` change in the tables; nothing for most of them."""
    return grouped(
        (
            ((placed.tenant, _item_of(event)), _changes(placed, event))
            for placed, event in events
            if isinstance(event, WorkEvent)
        ),
        _ORDER,
    )


def _item_of(event: WorkEvent) -> str:
    return event.file_id if isinstance(event, FileAdded | FileDeleted) else event.batch_id


def _changes(placed: Placed, event: WorkEvent) -> Iterator[Change]:
    tenant = placed.tenant
    match event:
        case FileAdded():
            what = event.owner, event.purpose, event.size_bytes, event.expires_at_us
            yield _ADD_FILE, (tenant, event.file_id, placed.position, *what)
        case FileDeleted():
            yield _END_FILE, (tenant, event.file_id)
        case BatchCreated():
            yield _ADD_BATCH, (tenant, event.batch_id, placed.position, event.owner)
        case BatchRefused() | BatchEnded():
            yield _END_BATCH, (tenant, event.batch_id)
