"""Making the tables of sessions and stored completions again from the log, beside servers that go on recording."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from manent.adapters.store.codec import decode_event
from manent.adapters.store.postgres_link import DRIVER_ERRORS, numbered, reason
from manent.adapters.store.schema import (
    completions,
    event_headers,
    event_payloads,
    log_head,
    session_metadata,
    sessions,
    stored_completions,
    stored_metadata,
)
from manent.adapters.store.session_index import INDEXED_TYPES, Placed, Statement, index_statements
from manent.adapters.store.stored_index import STORED_TYPES, stored_statements
from manent.domain.errors import StoreUnavailable
from manent.domain.events import SESSION_STREAMS, DomainEvent

ADD_COMPLETION = "INSERT INTO completions (tenant, completion_id, position) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
POSITIONS_AT_ONCE = 2_000
PAUSE_S_MIN = 0.005


class _Named(msgspec.Struct):
    completion_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionIndexRebuilt:
    """How many events were read and how many sessions the tables hold now."""

    events: int
    sessions: int


async def rebuild_session_index(
    engine: AsyncEngine, *, progress: Callable[[int], None] = lambda _: None
) -> SessionIndexRebuilt:
    """Empty the tables of ``engine``'s database and fill them from the log; ``progress`` is told positions done.

    The log is gone through in pieces, each in a transaction that holds the log's lock, so that appends wait for one
    piece and no two transactions for each other. Until the end lists are short. What is recorded meanwhile comes into
    the tables with its own commit, and once more in its turn here: the last word on every session is that of its last
    event. If it is cut short, it is to be run again.

    Raises:
        StoreUnavailable: the database refused or did not answer.
        LogCorrupt: an event of a session does not decode.
    """
    try:
        async with engine.begin() as connection:
            await _lock(connection)
            await connection.execute(delete(session_metadata))
            await connection.execute(delete(sessions))
            for table in (completions, stored_metadata, stored_completions):
                await connection.execute(delete(table))
        done = 0
        while True:
            begun_s = perf_counter()
            async with engine.begin() as connection:
                head = await _lock(connection)
                if done >= head:
                    count = await connection.scalar(select(func.count()).select_from(sessions))
                    return SessionIndexRebuilt(events=done, sessions=count or 0)
                last = min(done + POSITIONS_AT_ONCE, head)
                await _index(connection, done, last)
            progress(last - done)
            done = last
            if engine.dialect.name == "sqlite":
                # Who waits for SQLite's lock looks every now and then; half of the time it must be free.
                await asyncio.sleep(max(PAUSE_S_MIN, perf_counter() - begun_s))
    except DBAPIError as error:
        raise StoreUnavailable(f"the database refused: {error.orig}") from error
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"the database did not answer: {error}") from error
    except DRIVER_ERRORS as error:
        raise StoreUnavailable(f"the database did not answer: {reason(error)}") from error


async def _lock(connection: AsyncConnection) -> int:
    """The head of the log, which nobody moves until this transaction ends; SQLite's began with the one lock it has."""
    return await connection.scalar(select(log_head.c.position).with_for_update()) or 0


async def _index(connection: AsyncConnection, after: int, last: int) -> None:
    positions = event_headers.c.position
    query = (
        select(
            *(event_headers.c[name] for name in (*Placed._fields, "type", "schema_version")), event_payloads.c.payload
        )
        .select_from(event_headers.outerjoin(event_payloads, event_payloads.c.position == positions))
        .where(positions > after, positions <= last, event_headers.c.type.in_((*INDEXED_TYPES, *STORED_TYPES)))
        .order_by(positions)
    )
    found: list[tuple[Placed, DomainEvent]] = []
    for row in await connection.execute(query):
        placed = Placed(row.tenant, row.position, row.actor, row.stream_version)
        found.append((placed, decode_event(row.type, row.schema_version, row.payload)))
    indexed = (*index_statements(found), *stored_statements(found))
    for statement, rows in (*indexed, *await _completions(connection, after, last)):
        written = statement if connection.dialect.name == "sqlite" else numbered(statement)
        await connection.exec_driver_sql(written, rows)


async def _completions(connection: AsyncConnection, after: int, last: int) -> list[Statement]:
    """The table by which completions of sessions are found; of their payloads no more is read than it needs."""
    columns = event_headers.c
    query = (
        select(columns.tenant, columns.position, event_payloads.c.payload)
        .select_from(event_headers.join(event_payloads, event_payloads.c.position == columns.position))
        .where(columns.position > after, columns.position <= last)
        .where(columns.type == "CompletionRequested", columns.stream_id.startswith(SESSION_STREAMS, autoescape=True))
    )
    rows = [
        (row.tenant, msgspec.json.decode(row.payload, type=_Named).completion_id, row.position)
        for row in await connection.execute(query)
    ]
    return [(ADD_COMPLETION, rows)] if rows else []
