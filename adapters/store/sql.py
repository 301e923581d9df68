"""What the stores on SQL databases share: reading, through SQLAlchemy Core, and appending through a committer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from manent.adapters.store.batch import AppendRequest
from manent.adapters.store.codec import decode_event, decode_step
from manent.adapters.store.committer import Committer
from manent.adapters.store.event_query import (
    has_times,
    in_positions,
    in_stream,
    select_page,
    select_positions,
    select_records,
    select_steps,
)
from manent.adapters.store.frontier import read_tree_node, unpack_frontier
from manent.adapters.store.schema import (
    completions,
    event_headers,
    idempotency_keys,
    log_head,
    open_completions,
)
from manent.adapters.store.session_list import SQLSessionDirectory
from manent.adapters.store.stored_list import SQLStoredCompletions
from manent.domain.errors import StoreUnavailable
from manent.domain.events import DomainEvent
from manent.domain.merkle import Frontier
from manent.domain.ports import Ids
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
from manent.domain.telemetry import Telemetry

_HEADER_COLUMNS = tuple(column.name for column in event_headers.c)


class SQLEventStore:
    """An event store over a committer, which writes, and an engine, which reads; ``name`` stands in its errors.

    ``driver_errors`` are those that SQLAlchemy lets through as they are.
    """

    def __init__(
        self,
        *,
        committer: Committer,
        readers: AsyncEngine,
        ids: Ids,
        name: str,
        driver_errors: tuple[type[Exception], ...] = (OSError,),
    ) -> None:
        self._committer = committer
        self._readers = readers
        self._ids = ids
        self._name = name
        self._driver_errors = driver_errors
        self.directory = SQLSessionDirectory(self._reading)
        self.stored = SQLStoredCompletions(self._reading)

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
        return await self._committer.append(request)

    async def read_stream(
        self, tenant: str, stream_id: str, *, after_version: int = 0, max_version: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """See ``EventStore.read_stream``."""
        query = in_stream(select_records(), tenant, stream_id, after_version, max_version).limit(limit)
        async with self._reading() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def read_events(
        self, tenant: str, stream_id: str, *, after_version: int = 0, max_version: int | None = None, limit: int = 500
    ) -> Sequence[StreamEvent]:
        """See ``EventStore.read_events``."""
        query = in_stream(select_steps(), tenant, stream_id, after_version, max_version).limit(limit)
        async with self._reading() as connection:
            return [stream_event(row) for row in await connection.execute(query)]

    async def query(
        self, event_filter: EventFilter, *, after_position: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[LogEntry]:
        """See ``EventStore.query``."""
        async with self._reading() as connection:
            if has_times(event_filter):
                begin, later = (await connection.execute(select_positions(event_filter))).one()
                event_filter = in_positions(event_filter, begin, later)
            page = select_page(event_filter, after_position=after_position, limit=limit, newest_first=newest_first)
            return [log_entry(row) for row in await connection.execute(page)]

    async def find_answer(self, key: IdempotencyKey) -> Appended | None:
        """See ``EventStore.find_answer``."""
        columns = idempotency_keys.c
        query = select(idempotency_keys).where(columns.scope == key.scope, columns.key == key.key)
        async with self._reading() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            return None
        key.check_same_request(row.request_digest)
        return Appended(position=row.position, stream_version=row.stream_version, repeated=True)

    async def find_completion(self, tenant: str, completion_id: str) -> int | None:
        """See ``EventStore.find_completion``."""
        wanted = completions.c.tenant == tenant, completions.c.completion_id == completion_id
        async with self._reading() as connection:
            return (await connection.execute(select(completions.c.position).where(*wanted))).scalar()

    async def head(self) -> Frontier:
        """See ``EventStore.head``."""
        async with self._reading() as connection:
            row = (await connection.execute(select(log_head.c.position, log_head.c.frontier))).one()
        return unpack_frontier(row.position, row.frontier)

    async def tree_node(self, level: int, index: int) -> bytes:
        """See ``EventStore.tree_node``."""
        async with self._reading() as connection:
            return await read_tree_node(connection, level, index)

    async def open_completions(self, *, completion_id: str | None = None, limit: int = 100) -> list[OpenCompletion]:
        """See ``EventStore.open_completions``."""
        query = select(open_completions).order_by(open_completions.c.position).limit(limit)
        if completion_id is not None:
            query = query.where(open_completions.c.completion_id == completion_id)
        async with self._reading() as connection:
            return [
                OpenCompletion(tenant=row.tenant, stream_id=row.stream_id, completion_id=row.completion_id)
                for row in await connection.execute(query)
            ]

    async def orphaned_completions(self, *, completion_id: str | None = None, limit: int = 100) -> list[OpenCompletion]:
        """See ``EventStore.orphaned_completions``: all, since the one server of this database asks."""
        return await self.open_completions(completion_id=completion_id, limit=limit)

    def observe(self, observer: Callable[[int | None], None]) -> None:
        """See ``EventStore.observe``."""
        self._committer.observe(observer)

    async def ping(self) -> None:
        """See ``EventStore.ping``."""
        self._committer.check_writable()
        async with self._reading() as connection:
            await connection.execute(select(log_head.c.position))

    @property
    def waiting(self) -> int:
        """How many appends wait for the next transaction."""
        return self._committer.waiting

    def report_to(self, telemetry: Telemetry) -> None:
        """Tell ``telemetry`` of every transaction from now on."""
        self._committer.telemetry = telemetry

    async def aclose(self) -> None:
        """Commit what waits, then close every connection."""
        await self._committer.aclose()
        await self._readers.dispose()

    @asynccontextmanager
    async def _reading(self) -> AsyncGenerator[AsyncConnection, None]:
        async with self._translated_errors(), self._readers.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _translated_errors(self) -> AsyncGenerator[None, None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreUnavailable(f"the database {self._name} refused: {error.orig}") from error
        except SQLAlchemyError as error:
            raise StoreUnavailable(f"the database {self._name} did not answer: {error}") from error
        except self._driver_errors as error:
            words = str(error) or type(error).__name__
            raise StoreUnavailable(f"the database {self._name} did not answer: {words}") from error


def log_entry(row: Sequence[Any]) -> LogEntry:
    """An entry of the columns of ``select_page``: the header's, payload and salt."""
    return LogEntry(header=_header(row), payload=row[-2], salt=row[-1])


def stream_event(row: Sequence[Any]) -> StreamEvent:
    """An event from its version, id, type, schema version and payload."""
    stream_version, event_id, type_name, schema_version, payload = row
    return StreamEvent(stream_version, event_id, decode_step(type_name, schema_version, payload))


def _header(row: Sequence[Any]) -> EventHeader:
    return EventHeader(**dict(zip(_HEADER_COLUMNS, row, strict=False)))


def _record(row: Row[Any]) -> RecordedEvent:
    header = _header(row)
    return RecordedEvent(header=header, event=decode_event(header.type, header.schema_version, row.payload))
