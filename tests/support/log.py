"""The whole log, and the hashes of its headers."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.store.codec import header_bytes
from manent.domain.merkle import Frontier, leaf_hash
from manent.domain.ports import EventStore
from manent.domain.records import EventFilter, LogEntry


async def whole_log(store: EventStore) -> list[LogEntry]:
    """Every event, page by page."""
    entries: list[LogEntry] = []
    while page := await store.query(EventFilter(), after_position=len(entries), limit=500):
        entries += page
    return entries


def tree_of(entries: Sequence[LogEntry]) -> Frontier:
    """The tree over the entries' headers."""
    return Frontier().extended([leaf_hash(header_bytes(entry.header)) for entry in entries])
