"""An event store in memory: the contract's plainest reading, for tests and experiments. Nothing survives it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

from manent.adapters.store.batch import AppendRequest, Batch, Head, KeptAnswer
from manent.adapters.store.codec import header_bytes, header_of
from manent.adapters.store.memory_sessions import MemorySessionDirectory
from manent.adapters.store.memory_stored import MemoryStoredCompletions
from manent.domain.errors import DomainError
from manent.domain.events import DomainEvent
from manent.domain.merkle import Frontier, leaf_hash
from manent.domain.ports import Clock, Ids
from manent.domain.records import (
    Appended,
    EventContext,
    EventFilter,
    EventHeader,
    IdempotencyKey,
    LogEntry,
    OpenCompletion,
    RecordedEvent,
    StreamEvent,
)
from manent.domain.short_events import in_short


class MemoryEventStore:
    """The log as a list."""

    def __init__(self, *, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self._head = Head(log_id=ids.new("log_"), recorded_at_us=0, frontier=Frontier())
        self._log: list[LogEntry] = []
        self._streams: defaultdict[tuple[str, str], list[RecordedEvent]] = defaultdict(list)
        self._open: dict[str, OpenCompletion] = {}
        self._answers: dict[tuple[str, str], KeptAnswer] = {}
        self._completions: dict[tuple[str, str], int] = {}
        self._models: dict[int, str] = {}
        self._observers: list[Callable[[int | None], None]] = []
        self.directory = MemorySessionDirectory(self._streams)
        self.stored = MemoryStoredCompletions()

    async def append(
        self,
        stream_id: str,
        events: Sequence[DomainEvent],
        *,
        expected_version: int,
        context: EventContext,
        idempotency: IdempotencyKey | None = None,
    ) -> Appended:
        """See ``EventStore.append``."""
        request = AppendRequest.of(
            stream_id,
            events,
            expected_version=expected_version,
            context=context,
            idempotency=idempotency,
            ids=self._ids,
        )
        await asyncio.sleep(0)
        batch = Batch(
            head=self._head,
            now_us=self._clock.now_us(),
            versions={request.stream: len(self._streams[request.stream])},
            kept_answers=self._answers,
        )
        batch.judge([request])
        self._take(batch)
        (verdict,) = batch.verdicts
        if isinstance(verdict, DomainError):
            raise verdict
        return verdict

    def _take(self, batch: Batch) -> None:
        """What a database writes."""
        self._head = batch.head
        for draft, row in zip(batch.drafts, batch.headers, strict=True):
            header = header_of(row)
            self._log.append(LogEntry(header=header, payload=draft.payload, salt=draft.salt))
            self._streams[header.tenant, header.stream_id].append(RecordedEvent(header=header, event=draft.event))
            self.directory.take(header, draft.event)
            self.stored.take(header, draft.event)
        for completion, _ in batch.opened:
            self._open[completion.completion_id] = completion
        for _, completion_id in batch.closed:
            self._open.pop(completion_id, None)
        self._completions |= {(tenant, found): position for tenant, found, position in batch.in_sessions}
        self._answers |= batch.answers
        self._models |= {position: model_id for model_id, position in batch.models}
        for observer in self._observers if batch.headers else ():
            observer(self._head.frontier.size)

    async def read_stream(
        self, tenant: str, stream_id: str, *, after_version: int = 0, max_version: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """See ``EventStore.read_stream``."""
        await asyncio.sleep(0)
        stream = self._streams.get((tenant, stream_id), [])
        return stream[after_version:max_version][:limit]

    async def read_events(
        self, tenant: str, stream_id: str, *, after_version: int = 0, max_version: int | None = None, limit: int = 500
    ) -> list[StreamEvent]:
        """See ``EventStore.read_events``."""
        page = await self.read_stream(
            tenant, stream_id, after_version=after_version, max_version=max_version, limit=limit
        )
        return [
            StreamEvent(found.header.stream_version, found.header.event_id, in_short(found.event)) for found in page
        ]

    async def query(
        self, event_filter: EventFilter, *, after_position: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[LogEntry]:
        """See ``EventStore.query``."""
        await asyncio.sleep(0)
        start = max(after_position, (event_filter.min_position or 1) - 1)
        found: list[LogEntry] = []
        wanted = self._log[start : event_filter.max_position]
        for recorded in reversed(wanted) if newest_first else wanted:
            if len(found) == limit:
                break
            if _matches(event_filter, recorded.header, self._models.get(recorded.header.position)):
                found.append(recorded)
        return found

    async def find_answer(self, key: IdempotencyKey) -> Appended | None:
        """See ``EventStore.find_answer``."""
        kept = self._answers.get(key.place)
        if kept is None:
            return None
        key.check_same_request(kept.request_digest)
        return kept.appended.as_repeated()

    async def find_completion(self, tenant: str, completion_id: str) -> int | None:
        """See ``EventStore.find_completion``."""
        return self._completions.get((tenant, completion_id))

    async def head(self) -> Frontier:
        """See ``EventStore.head``."""
        return self._head.frontier

    async def tree_node(self, level: int, index: int) -> bytes:
        """See ``EventStore.tree_node``."""
        leaves = [leaf_hash(header_bytes(entry.header)) for entry in self._log[index << level : (index + 1) << level]]
        return Frontier().extended(leaves).root

    async def open_completions(self, *, completion_id: str | None = None, limit: int = 100) -> list[OpenCompletion]:
        """See ``EventStore.open_completions``."""
        found = [completion for completion in self._open.values() if completion_id in {None, completion.completion_id}]
        return found[:limit]

    async def orphaned_completions(self, *, completion_id: str | None = None, limit: int = 100) -> list[OpenCompletion]:
        """See ``EventStore.orphaned_completions``: all, since nobody else has this memory."""
        return await self.open_completions(completion_id=completion_id, limit=limit)

    def observe(self, observer: Callable[[int | None], None]) -> None:
        """See ``EventStore.observe``."""
        self._observers.append(observer)

    async def ping(self) -> None:
        """Memory always answers."""

    async def aclose(self) -> None:
        """Nothing to close."""


def _matches(wanted: EventFilter, header: EventHeader, model_id: str | None) -> bool:
    pairs = (
        (wanted.tenant, header.tenant),
        (wanted.stream_id, header.stream_id),
        (wanted.type, header.type),
        (wanted.actor, header.actor),
        (wanted.model_id, model_id),
        (wanted.request_id, header.request_id),
        (wanted.correlation_id, header.correlation_id),
    )
    if wanted.since_us is not None and header.recorded_at_us < wanted.since_us:
        return False
    if wanted.until_us is not None and header.recorded_at_us > wanted.until_us:
        return False
    return all(want is None or want == have for want, have in pairs)
