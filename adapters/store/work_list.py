"""Finding files and batches in a database: one index chooses a page, in its order."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select

from manent.adapters.store.codec import decode_event
from manent.adapters.store.schema import batches, event_headers, event_payloads, file_chunks, files
from manent.adapters.store.session_list import Reading
from manent.adapters.store.work_index import KEPT, OPEN
from manent.domain.batch_events import FileAdded
from manent.domain.files import FileFilter, FileKept

_FILES = files.c
_BATCHES = batches.c


class SQLWorkDirectory:
    """Implements ``WorkDirectory``; ``reading`` gives a connection in a transaction."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def files(
        self, wanted: FileFilter, *, after_position: int | None, limit: int, descending: bool
    ) -> list[FileKept]:
        """See ``WorkDirectory.files``."""
        lasts = or_(_FILES.expires_at_us.is_(None), _FILES.expires_at_us > wanted.at_us)
        query = _kept().where(_FILES.tenant == wanted.tenant, _FILES.owner == wanted.owner, lasts)
        if wanted.purpose is not None:
            query = query.where(_FILES.purpose == wanted.purpose)
        return await self._read_files(_page(query, _FILES.position, after_position, limit, descending=descending))

    async def file(self, tenant: str, file_id: str) -> FileKept | None:
        """See ``WorkDirectory.file``."""
        found = await self._read_files(_kept().where(_FILES.tenant == tenant, _FILES.file_id == file_id))
        return found[0] if found else None

    async def usage(self, tenant: str, owner: str) -> tuple[int, int]:
        """See ``WorkDirectory.usage``."""
        query = select(func.count(), func.coalesce(func.sum(_FILES.size_bytes), 0)).where(
            _FILES.tenant == tenant, _FILES.owner == owner, _FILES.status == KEPT
        )
        async with self._reading() as connection:
            count, size_bytes = (await connection.execute(query)).one()
        return count, int(size_bytes)

    async def due_files(self, *, now_us: int, limit: int) -> list[FileKept]:
        """See ``WorkDirectory.due_files``."""
        due = _kept().where(_FILES.expires_at_us <= now_us).order_by(_FILES.expires_at_us).limit(limit)
        return await self._read_files(due)

    async def batches(
        self, tenant: str, owner: str, *, after_position: int | None, limit: int, descending: bool
    ) -> list[tuple[int, str]]:
        """See ``WorkDirectory.batches``."""
        query = select(_BATCHES.position, _BATCHES.batch_id).where(_BATCHES.tenant == tenant, _BATCHES.owner == owner)
        page = _page(query, _BATCHES.position, after_position, limit, descending=descending)
        async with self._reading() as connection:
            return [(row.position, row.batch_id) for row in await connection.execute(page)]

    async def place(self, tenant: str, owner: str, item_id: str) -> int | None:
        """See ``WorkDirectory.place``."""
        of_file = select(_FILES.position).where(
            _FILES.tenant == tenant, _FILES.file_id == item_id, _FILES.owner == owner
        )
        of_batch = select(_BATCHES.position).where(
            _BATCHES.tenant == tenant, _BATCHES.batch_id == item_id, _BATCHES.owner == owner
        )
        async with self._reading() as connection:
            return (await connection.execute(of_file.union_all(of_batch))).scalar()

    async def open_batches(self, *, limit: int) -> list[tuple[str, str, str]]:
        """See ``WorkDirectory.open_batches``."""
        query = select(_BATCHES.tenant, _BATCHES.owner, _BATCHES.batch_id).where(_BATCHES.status == OPEN)
        async with self._reading() as connection:
            rows = await connection.execute(query.order_by(_BATCHES.position).limit(limit))
            return [(row.tenant, row.owner, row.batch_id) for row in rows]

    async def count_open(self, tenant: str, owner: str) -> int:
        """See ``WorkDirectory.count_open``."""
        query = select(func.count()).where(_BATCHES.tenant == tenant, _BATCHES.owner == owner, _BATCHES.status == OPEN)
        async with self._reading() as connection:
            return (await connection.execute(query)).scalar_one()

    async def piece(self, tenant: str, file_id: str, number: int) -> bytes | None:
        """The bytes of a piece of a file; None where there is none. Nobody who writes waits for this."""
        chunks = file_chunks.c
        query = select(chunks.data).where(chunks.tenant == tenant, chunks.file_id == file_id, chunks.number == number)
        async with self._reading() as connection:
            return (await connection.execute(query)).scalar()

    async def _read_files(self, query: Select[Any]) -> list[FileKept]:
        """Files with their events; one whose event was erased is not there any more."""
        async with self._reading() as connection:
            rows = (await connection.execute(query)).all()
        found = []
        for row in rows:
            added = decode_event(row.type, row.schema_version, row.payload)
            if isinstance(added, FileAdded):
                found.append(FileKept(tenant=row.tenant, position=row.position, added=added))
        return found


def _kept() -> Select[Any]:
    """The files that are there."""
    return (
        select(_FILES.tenant, _FILES.position, event_headers.c.type, event_headers.c.schema_version)
        .add_columns(event_payloads.c.payload)
        .select_from(
            files.join(event_headers, event_headers.c.position == _FILES.position).outerjoin(
                event_payloads, event_payloads.c.position == _FILES.position
            )
        )
        .where(_FILES.status == KEPT)
    )


def _page(
    query: Select[Any], position: ColumnElement[int], after: int | None, limit: int, *, descending: bool
) -> Select[Any]:
    if after is not None:
        query = query.where(position < after if descending else position > after)
    return query.order_by(position.desc() if descending else position).limit(limit)
