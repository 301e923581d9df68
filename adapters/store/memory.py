"""An event store in memory: the contract's plainest reading, for tests and experiments. Nothing survives it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from manent.adapters.store.records import (
    Place,
    closed_completions,
    draft_events,
    opened_completions,
    place_headers,
)
from manent.domain.errors import VersionConflict
from manent.domain.events import DomainEvent
from manent.domain.ports import (
    Appended,
    Clock,
    EventContext,
    EventFilter,
    EventHeader,
    Ids,
    LogEntry,
    OpenCompletion,
    RecordedEvent,
)


class MemoryEventStore:
    """The log as a list."""

    def __init__(self, *, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self._log_id = ids.new("log_")
        self._log: list[LogEntry] = []
        self._streams: defaultdict[tuple[str, str], list[RecordedEvent]] = defaultdict(list)
        self._open: dict[str, OpenCompletion] = {}

    async def append(
        self, stream_id: str, events: Sequence[DomainEvent], *, expected_version: int, context: EventContext
    ) -> Appended:
        """See ``EventStore.append``."""
        drafts = draft_events(events, self._ids)
        await asyncio.sleep(0)
        stream = self._streams[context.tenant, stream_id]
        if len(stream) != expected_version:
            raise VersionConflict(f"stream {stream_id!r} is at version {len(stream)}, not {expected_version}")
        place = Place(
            log_id=self._log_id,
            position=len(self._log) + 1,
            stream_version=expected_version + 1,
            recorded_at_us=self._clock.now_us(),
        )
        headers = place_headers(drafts, place, stream_id, context)
        for draft, header in zip(drafts, headers, strict=True):
            self._log.append(LogEntry(header=header, payload=draft.encoded.payload, salt=draft.salt))
            stream.append(RecordedEvent(header=header, event=draft.event))
        for completion_id in opened_completions(events):
            self._open[completion_id] = OpenCompletion(
                tenant=context.tenant, stream_id=stream_id, completion_id=completion_id
            )
        for completion_id in closed_completions(events):
            self._open.pop(completion_id, None)
        return Appended(position=len(self._log), stream_version=len(stream))

    async def read_stream(
        self, tenant: str, stream_id: str, *, after_version: int = 0, max_version: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """See ``EventStore.read_stream``."""
        await asyncio.sleep(0)
        stream = self._streams.get((tenant, stream_id), [])
        return stream[after_version:max_version][:limit]

    async def query(self, event_filter: EventFilter, *, after_position: int = 0, limit: int = 100) -> list[LogEntry]:
        """See ``EventStore.query``."""
        await asyncio.sleep(0)
        start = max(after_position, (event_filter.min_position or 1) - 1)
        found: list[LogEntry] = []
        for recorded in self._log[start : event_filter.max_position]:
            if len(found) == limit:
                break
            if _matches(event_filter, recorded.header):
                found.append(recorded)
        return found

    async def open_completions(self, *, limit: int = 100) -> list[OpenCompletion]:
        """See ``EventStore.open_completions``."""
        return list(self._open.values())[:limit]

    async def ping(self) -> None:
        """Memory always answers."""

    async def aclose(self) -> None:
        """Nothing to close."""


def _matches(event_filter: EventFilter, header: EventHeader) -> bool:
    return (
        event_filter.tenant in {None, header.tenant}
        and event_filter.stream_id in {None, header.stream_id}
        and event_filter.type in {None, header.type}
    )
