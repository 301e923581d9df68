"""A stream, or what of it follows a version, read to its end: a page at a time, whatever its length."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from manent.domain.ports import EventStore
from manent.domain.records import RecordedEvent

PAGE = 500


async def stream_records(
    store: EventStore, tenant: str, stream_id: str, *, after_version: int = 0, max_version: int | None = None
) -> AsyncGenerator[RecordedEvent, None]:
    """The events with versions above ``after_version`` up to ``max_version``; whoever leaves early closes it.

    Raises:
        StoreUnavailable, LogCorrupt: the stream cannot be read.
    """
    while True:
        page = await store.read_stream(
            tenant, stream_id, after_version=after_version, max_version=max_version, limit=PAGE
        )
        for recorded in page:
            yield recorded
        if len(page) < PAGE:
            return
        after_version += len(page)
