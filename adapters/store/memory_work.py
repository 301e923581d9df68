"""Finding files and batches in memory, and the bytes of files there: the same rows that a database keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from manent.domain.batch_events import BatchCreated, BatchEnded, BatchRefused, FileAdded, FileDeleted
from manent.domain.errors import LeaseLost, VersionConflict
from manent.domain.events import DomainEvent
from manent.domain.files import FileFilter, FileKept
from manent.domain.records import EventHeader
from manent.domain.subscriptions import Lease

Item = TypeVar("Item")


class MemoryWorkDirectory:
    """Implements ``WorkDirectory``."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], FileKept] = {}
        self._deleted: set[tuple[str, str]] = set()
        self._batches: dict[tuple[str, str], tuple[int, BatchCreated]] = {}
        self._over: set[tuple[str, str]] = set()

    def take(self, header: EventHeader, event: DomainEvent) -> None:
        """Keep what ``event`` changes."""
        tenant = header.tenant
        match event:
            case FileAdded():
                kept = FileKept(tenant=tenant, position=header.position, added=event)
                self._files.setdefault((tenant, event.file_id), kept)
            case FileDeleted():
                self._deleted.add((tenant, event.file_id))
            case BatchCreated():
                self._batches.setdefault((tenant, event.batch_id), (header.position, event))
            case BatchRefused() | BatchEnded():
                self._over.add((tenant, event.batch_id))

    async def files(
        self, wanted: FileFilter, *, after_position: int | None, limit: int, descending: bool
    ) -> list[FileKept]:
        """See ``WorkDirectory.files``."""
        await asyncio.sleep(0)
        kept = [
            kept
            for kept in self._kept()
            if (kept.tenant, kept.added.owner) == (wanted.tenant, wanted.owner)
            and wanted.purpose in {None, kept.added.purpose}
            and not kept.is_over(wanted.at_us)
        ]
        return _page(kept, lambda kept: kept.position, after_position, limit, descending=descending)

    async def file(self, tenant: str, file_id: str) -> FileKept | None:
        """See ``WorkDirectory.file``."""
        await asyncio.sleep(0)
        return None if (tenant, file_id) in self._deleted else self._files.get((tenant, file_id))

    async def usage(self, tenant: str, owner: str) -> tuple[int, int]:
        """See ``WorkDirectory.usage``."""
        await asyncio.sleep(0)
        sizes = [kept.added.size_bytes for kept in self._kept() if (kept.tenant, kept.added.owner) == (tenant, owner)]
        return len(sizes), sum(sizes)

    async def due_files(self, *, now_us: int, limit: int) -> list[FileKept]:
        """See ``WorkDirectory.due_files``."""
        await asyncio.sleep(0)
        due = [kept for kept in self._kept() if kept.is_over(now_us)]
        return sorted(due, key=lambda kept: kept.added.expires_at_us or 0)[:limit]

    async def batches(
        self, tenant: str, owner: str, *, after_position: int | None, limit: int, descending: bool
    ) -> list[tuple[int, str]]:
        """See ``WorkDirectory.batches``."""
        await asyncio.sleep(0)
        found = [
            (position, created.batch_id)
            for (of, _), (position, created) in self._batches.items()
            if (of, created.owner) == (tenant, owner)
        ]
        return _page(found, lambda row: row[0], after_position, limit, descending=descending)

    async def place(self, tenant: str, owner: str, item_id: str) -> int | None:
        """See ``WorkDirectory.place``."""
        await asyncio.sleep(0)
        kept, batch = self._files.get((tenant, item_id)), self._batches.get((tenant, item_id))
        if kept is not None and kept.added.owner == owner:
            return kept.position
        return batch[0] if batch is not None and batch[1].owner == owner else None

    async def open_batches(self, *, limit: int) -> list[tuple[str, str, str]]:
        """See ``WorkDirectory.open_batches``."""
        await asyncio.sleep(0)
        found = [
            (tenant, created.owner, batch_id)
            for (tenant, batch_id), (_, created) in self._batches.items()
            if (tenant, batch_id) not in self._over
        ]
        return found[:limit]

    async def count_open(self, tenant: str, owner: str) -> int:
        """See ``WorkDirectory.count_open``."""
        await asyncio.sleep(0)
        return sum(
            place[0] == tenant and created.owner == owner
            for place, (_, created) in self._batches.items()
            if place not in self._over
        )

    def has_open_batch(self, tenant: str, before_us: int) -> bool:
        """Whether a batch that was made before that time has not ended."""
        return any(
            place[0] == tenant and created.created_at_us < before_us
            for place, (_, created) in self._batches.items()
            if place not in self._over
        )

    def _kept(self) -> list[FileKept]:
        return [kept for place, kept in self._files.items() if place not in self._deleted]


class MemoryFileContent:
    """Implements ``FileContent``; ``holds`` says whether a lease is held."""

    def __init__(
        self,
        directory: MemoryWorkDirectory,
        *,
        now_us: Callable[[], int],
        holds: Callable[[Lease], bool] = lambda _: True,
    ) -> None:
        self._directory = directory
        self._now_us = now_us
        self._holds = holds
        self._pieces: dict[tuple[str, str], dict[int, bytes]] = {}
        self._begun_us: dict[tuple[str, str], int] = {}

    async def put(self, tenant: str, file_id: str, number: int, data: bytes, *, lease: Lease | None = None) -> None:
        """See ``FileContent.put``."""
        await asyncio.sleep(0)
        if lease is not None and not self._holds(lease):
            raise LeaseLost(f"{lease.owner!r} lost the lease {lease.name!r}: nothing of file {file_id} was written")
        pieces = self._pieces.setdefault((tenant, file_id), {})
        if number in pieces:
            raise VersionConflict(f"piece {number} of file {file_id} is there already")
        pieces[number] = data
        self._begun_us.setdefault((tenant, file_id), self._now_us())

    async def read(self, tenant: str, file_id: str, number: int) -> bytes | None:
        """See ``FileContent.read``."""
        await asyncio.sleep(0)
        return self._pieces.get((tenant, file_id), {}).get(number)

    async def drop(self, tenant: str, file_id: str, *, first: int = 0, lease: Lease | None = None) -> None:
        """See ``FileContent.drop``."""
        await asyncio.sleep(0)
        if lease is not None and not self._holds(lease):
            return
        pieces = self._pieces.get((tenant, file_id), {})
        self._pieces[tenant, file_id] = {number: data for number, data in pieces.items() if number < first}

    async def sweep(self, *, before_us: int) -> int:
        """See ``FileContent.sweep``."""
        found = [
            place
            for place, begun_us in self._begun_us.items()
            if begun_us < before_us
            and not self._directory.has_open_batch(place[0], before_us)
            and await self._directory.file(*place) is None
            and self._pieces.get(place)
        ]
        for place in found:
            del self._pieces[place]
        return len(found)


def _page(
    items: Sequence[Item], position: Callable[[Item], int], after: int | None, limit: int, *, descending: bool
) -> list[Item]:
    found = sorted(items, key=position, reverse=descending)
    if after is not None:
        found = [item for item in found if (position(item) < after if descending else position(item) > after)]
    return found[:limit]
