"""The event store on SQLite: WAL, ``synchronous=FULL``, one writer, many readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, event, func, insert, select, text, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from manent.adapters.store.codec import JSON_ENCODING, decode_event
from manent.adapters.store.records import (
    Draft,
    Place,
    closed_completions,
    draft_events,
    opened_completions,
    place_headers,
)
from manent.adapters.store.schema import event_headers, event_payloads, log_head, open_completions
from manent.domain.errors import StoreUnavailable, VersionConflict
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

READERS_MAX = 4
APPENDS_WAITING_MAX = 1024
LOCK_WAIT_S = 5.0
_HEADER_FIELDS = tuple(EventHeader.__dataclass_fields__)


class SQLiteEventStore:
    """Appends in transactions of their own, one at a time, each fsynced before it is acknowledged."""

    def __init__(self, path: Path, *, clock: Clock, ids: Ids) -> None:
        self._path = path
        self._clock = clock
        self._ids = ids
        self._writer = _engine(path, connections_max=1)
        self._readers = _engine(path, connections_max=READERS_MAX)
        event.listen(self._writer.sync_engine, "begin", _begin_immediate)
        event.listen(self._readers.sync_engine, "begin", _begin_deferred)
        self._turn = asyncio.Lock()
        self._appends: set[asyncio.Task[Appended]] = set()

    async def append(
        self, stream_id: str, events: Sequence[DomainEvent], *, expected_version: int, context: EventContext
    ) -> Appended:
        """See ``EventStore.append``."""
        if len(self._appends) >= APPENDS_WAITING_MAX:
            raise StoreUnavailable(f"{len(self._appends)} appends are waiting for the database already")
        drafts = draft_events(events, self._ids)
        commit = asyncio.create_task(self._commit(stream_id, drafts, expected_version, context))
        self._appends.add(commit)
        commit.add_done_callback(self._forget)
        return await asyncio.shield(commit)

    async def read_stream(
        self, tenant: str, stream_id: str, *, after_version: int = 0, max_version: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """See ``EventStore.read_stream``."""
        query = (
            _select_records()
            .where(event_headers.c.tenant == tenant, event_headers.c.stream_id == stream_id)
            .where(event_headers.c.stream_version > after_version)
            .order_by(event_headers.c.stream_version)
            .limit(limit)
        )
        if max_version is not None:
            query = query.where(event_headers.c.stream_version <= max_version)
        async with self._reading() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def query(self, event_filter: EventFilter, *, after_position: int = 0, limit: int = 100) -> list[LogEntry]:
        """See ``EventStore.query``."""
        columns = event_headers.c
        query = _select_records().where(columns.position > after_position).order_by(columns.position).limit(limit)
        for column, value in (
            (columns.tenant, event_filter.tenant),
            (columns.stream_id, event_filter.stream_id),
            (columns.type, event_filter.type),
        ):
            if value is not None:
                query = query.where(column == value)
        if event_filter.min_position is not None:
            query = query.where(columns.position >= event_filter.min_position)
        if event_filter.max_position is not None:
            query = query.where(columns.position <= event_filter.max_position)
        async with self._reading() as connection:
            return [
                LogEntry(header=_header(row), payload=row.payload, salt=row.salt)
                for row in await connection.execute(query)
            ]

    async def open_completions(self, *, limit: int = 100) -> list[OpenCompletion]:
        """See ``EventStore.open_completions``."""
        query = select(open_completions).order_by(open_completions.c.position).limit(limit)
        async with self._reading() as connection:
            return [
                OpenCompletion(tenant=row.tenant, stream_id=row.stream_id, completion_id=row.completion_id)
                for row in await connection.execute(query)
            ]

    async def ping(self) -> None:
        """See ``EventStore.ping``."""
        async with self._reading() as connection:
            await connection.execute(select(log_head.c.position))

    async def aclose(self) -> None:
        """Finish the appends that wait, then close every connection."""
        if self._appends:
            await asyncio.wait(self._appends)
        await self._writer.dispose()
        await self._readers.dispose()

    def _forget(self, commit: asyncio.Task[Appended]) -> None:
        self._appends.discard(commit)
        if not commit.cancelled():
            commit.exception()  # its caller may be gone: what went wrong is nobody's news then

    async def _commit(
        self, stream_id: str, drafts: list[Draft], expected_version: int, context: EventContext
    ) -> Appended:
        async with self._turn, self._translated_errors(), self._writer.begin() as connection:
            head = (await connection.execute(select(log_head.c.log_id, log_head.c.position))).one()
            version = await _stream_version(connection, context.tenant, stream_id)
            if version != expected_version:
                raise VersionConflict(f"stream {stream_id!r} is at version {version}, not {expected_version}")
            place = Place(
                log_id=head.log_id,
                position=head.position + 1,
                stream_version=version + 1,
                recorded_at_us=self._clock.now_us(),
            )
            await _write(connection, drafts, place_headers(drafts, place, stream_id, context))
            return Appended(position=head.position + len(drafts), stream_version=version + len(drafts))

    @asynccontextmanager
    async def _reading(self) -> AsyncGenerator[AsyncConnection, None]:
        async with self._translated_errors(), self._readers.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _translated_errors(self) -> AsyncGenerator[None, None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreUnavailable(f"the database {self._path.name} refused: {error.orig}") from error
        except SQLAlchemyError as error:
            raise StoreUnavailable(f"the database {self._path.name} did not answer: {error}") from error


async def ensure_log(path: Path, ids: Ids) -> None:
    """Give a new database the identity of its log; an existing one keeps its own."""
    engine = _engine(path, connections_max=1)
    event.listen(engine.sync_engine, "begin", _begin_immediate)
    try:
        async with engine.begin() as connection:
            if (await connection.execute(select(log_head.c.id))).first() is None:
                await connection.execute(insert(log_head).values(id=1, log_id=ids.new("log_"), position=0))
    finally:
        await engine.dispose()


async def _stream_version(connection: AsyncConnection, tenant: str, stream_id: str) -> int:
    query = select(func.max(event_headers.c.stream_version)).where(
        event_headers.c.tenant == tenant, event_headers.c.stream_id == stream_id
    )
    return (await connection.execute(query)).scalar() or 0


async def _write(connection: AsyncConnection, drafts: Sequence[Draft], headers: Sequence[EventHeader]) -> None:
    await connection.execute(
        insert(event_headers), [{name: getattr(header, name) for name in _HEADER_FIELDS} for header in headers]
    )
    await connection.execute(
        insert(event_payloads),
        [
            {
                "position": header.position,
                "encoding": JSON_ENCODING,
                "salt": draft.salt,
                "payload": draft.encoded.payload,
            }
            for draft, header in zip(drafts, headers, strict=True)
        ],
    )
    last = headers[-1]
    await connection.execute(update(log_head).values(position=last.position))
    events = [draft.event for draft in drafts]
    for completion_id in opened_completions(events):
        await connection.execute(
            insert(open_completions).values(
                tenant=last.tenant, completion_id=completion_id, stream_id=last.stream_id, position=last.position
            )
        )
    for completion_id in closed_completions(events):
        await connection.execute(
            delete(open_completions).where(
                open_completions.c.tenant == last.tenant, open_completions.c.completion_id == completion_id
            )
        )


def _engine(path: Path, *, connections_max: int) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=LOCK_WAIT_S,
        connect_args={"timeout": LOCK_WAIT_S},
    )
    event.listen(engine.sync_engine, "connect", _configure)
    return engine


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # The driver must not open transactions by itself: the begin events below do, of the right kind.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.execute(text("BEGIN IMMEDIATE"))


def _begin_deferred(connection: Connection) -> None:
    connection.execute(text("BEGIN"))


def _select_records() -> Select[Any]:
    return select(event_headers, event_payloads.c.payload, event_payloads.c.salt).outerjoin(
        event_payloads, event_payloads.c.position == event_headers.c.position
    )


def _header(row: Row[Any]) -> EventHeader:
    return EventHeader(**{name: getattr(row, name) for name in _HEADER_FIELDS})


def _record(row: Row[Any]) -> RecordedEvent:
    header = _header(row)
    return RecordedEvent(header=header, event=decode_event(header.type, header.schema_version, row.payload))
