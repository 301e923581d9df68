"""The bytes of files in the log's database (SQLite or PostgreSQL, through SQLAlchemy Core), in pieces.

What a worker writes or destroys under a lease is one statement that looks at the lease as well: a worker that slept
through its lease's end changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import ColumnElement, and_, delete, exists, insert, literal, select, true
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from manent.adapters.store.schema import batches, event_headers, file_chunks, files, subscriptions
from manent.adapters.store.subscriptions import is_held, whole
from manent.adapters.store.work_index import KEPT, OPEN
from manent.adapters.store.work_list import SQLWorkDirectory
from manent.domain.errors import LeaseLost, StoreUnavailable, VersionConflict
from manent.domain.ports import Clock
from manent.domain.subscriptions import Lease

SWEEP_MAX = 100

_COLUMNS = file_chunks.c


class SQLFileContent:
    """Implements ``FileContent`` on the table ``file_chunks``; the engine is the caller's to dispose of.

    What is read is read through ``directory``, beside whoever writes.
    """

    def __init__(self, engine: AsyncEngine, directory: SQLWorkDirectory, *, clock: Clock) -> None:
        self._engine = engine
        self._directory = directory
        self._clock = clock

    @whole
    async def put(self, tenant: str, file_id: str, number: int, data: bytes, *, lease: Lease | None = None) -> None:
        """See ``FileContent.put``."""
        values = (tenant, file_id, number, self._clock.now_us(), data)
        row = select(*(literal(value, column.type) for value, column in zip(values, _COLUMNS, strict=True)))
        statement = insert(file_chunks).from_select(list(_COLUMNS), row.where(_holds(lease)))
        async with self._writing() as connection:
            written = await connection.execute(statement)
        if lease is not None and written.rowcount == 0:
            raise LeaseLost(f"{lease.owner!r} lost the lease {lease.name!r}: nothing of file {file_id} was written")

    async def read(self, tenant: str, file_id: str, number: int) -> bytes | None:
        """See ``FileContent.read``."""
        return await self._directory.piece(tenant, file_id, number)

    @whole
    async def drop(self, tenant: str, file_id: str, *, first: int = 0, lease: Lease | None = None) -> None:
        """See ``FileContent.drop``."""
        statement = delete(file_chunks).where(
            _COLUMNS.tenant == tenant, _COLUMNS.file_id == file_id, _COLUMNS.number >= first, _holds(lease)
        )
        async with self._writing() as connection:
            await connection.execute(statement)

    @whole
    async def sweep(self, *, before_us: int) -> int:
        """See ``FileContent.sweep``; at most ``SWEEP_MAX`` at once."""
        has_file = exists().where(
            and_(files.c.tenant == _COLUMNS.tenant, files.c.file_id == _COLUMNS.file_id, files.c.status == KEPT)
        )
        has_old_batch = exists(
            select(literal(1))
            .select_from(batches.join(event_headers, event_headers.c.position == batches.c.position))
            .where(batches.c.tenant == _COLUMNS.tenant, batches.c.status == OPEN)
            .where(event_headers.c.recorded_at_us < before_us)
        )
        orphans = (
            select(_COLUMNS.tenant, _COLUMNS.file_id)
            .where(_COLUMNS.number == 0, _COLUMNS.written_at_us < before_us, ~has_file, ~has_old_batch)
            .limit(SWEEP_MAX)
        )
        async with self._writing() as connection:
            found = (await connection.execute(orphans)).all()
            for tenant, file_id in found:
                await connection.execute(
                    delete(file_chunks).where(_COLUMNS.tenant == tenant, _COLUMNS.file_id == file_id)
                )
        return len(found)

    @asynccontextmanager
    async def _writing(self) -> AsyncGenerator[AsyncConnection, None]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise VersionConflict("this piece of the file is there already") from error
        except DBAPIError as error:
            raise StoreUnavailable(f"the database refused: {error.orig}") from error
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(f"the database did not answer: {error}") from error


def _holds(lease: Lease | None) -> ColumnElement[bool]:
    if lease is None:
        return true()
    return exists(select(literal(1)).select_from(subscriptions).where(*is_held(lease)))
