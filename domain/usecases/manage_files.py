"""Files, for their owners: brought piece by piece, listed, read, deleted; to everybody else they are not there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from manent.domain.access import Principal, may_use
from manent.domain.batch_events import FileAdded, FileDeleted, file_stream
from manent.domain.batch_work import WorkDirectory
from manent.domain.errors import DomainError, InvalidValue, LogCorrupt, VersionConflict
from manent.domain.files import (
    CHUNK_BYTES,
    FILE_ID,
    FileContent,
    FileFilter,
    FileKept,
    FileLimits,
    FileNotFound,
    FileTooLarge,
    TooManyFiles,
    check_expiry,
    check_filename,
    check_purpose,
)
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.records import EventContext
from manent.domain.usecases.sessions import context_of

SWEEP_PAGE = 100
ORPHAN_S = 2 * 24 * 3600
"""What was begun before, and belongs to no file, was left by a crash, unless a batch as old has yet to end."""

_log = logging.getLogger("manent.files")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileQuery:
    """What to list; ``after`` is a file's id."""

    purpose: str | None = None
    after: str | None = None
    limit: int = 10_000
    descending: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePage:
    """A page of files; ``has_more`` tells whether others follow in the asked order."""

    files: Sequence[FileKept]
    has_more: bool


class Upload:
    """A file that comes in, piece by piece; whoever begins one finishes or abandons it."""

    def __init__(self, content: FileContent, tenant: str, file_id: str, *, bytes_max: int) -> None:
        self._content = content
        self._tenant = tenant
        self._bytes_max = bytes_max
        self._digest = hashlib.sha256()
        self._held = bytearray()
        self.file_id = file_id
        self.size_bytes = 0
        self.chunks = 0
        self.may_be_recorded = False

    @property
    def sha256(self) -> str:
        """The digest of what has come, in hex."""
        return self._digest.hexdigest()

    async def write(self, data: bytes) -> None:
        """Take what comes next.

        Raises:
            FileTooLarge: the file is over its bound.
        """
        self.size_bytes += len(data)
        if self.size_bytes > self._bytes_max:
            raise FileTooLarge(f"the file is over the limit of {self._bytes_max} bytes")
        self._digest.update(data)
        self._held += data
        while len(self._held) >= CHUNK_BYTES:
            await self._put(bytes(self._held[:CHUNK_BYTES]))
            del self._held[:CHUNK_BYTES]

    async def close(self) -> None:
        """Keep what is left of it."""
        if self._held:
            await self._put(bytes(self._held))
            self._held.clear()

    async def abandon(self) -> None:
        """Destroy what came; what a database that is away keeps of it is swept later.

        Once its event is on its way it stays: whoever hears of no success, or hears nothing, may have a file.
        """
        if not self.may_be_recorded:
            with suppress(DomainError):
                await self._content.drop(self._tenant, self.file_id)

    async def _put(self, data: bytes) -> None:
        await self._content.put(self._tenant, self.file_id, self.chunks, data)
        self.chunks += 1


class ManageFiles:
    """What owners do with their files, and what becomes of those whose time is up."""

    def __init__(
        self,
        *,
        store: EventStore,
        directory: WorkDirectory,
        content: FileContent,
        clock: Clock,
        ids: Ids,
        limits: FileLimits | None = None,
        every_s: float = 15.0,
    ) -> None:
        self._store = store
        self._directory = directory
        self._content = content
        self._clock = clock
        self._ids = ids
        self.limits = limits or FileLimits()
        self._every_s = every_s

    async def begin(self, principal: Principal) -> Upload:
        """Begin a file.

        Raises:
            TooManyFiles: there is no room for another of ``principal``.
        """
        await self._check_room(principal, more_bytes=1)
        return Upload(self._content, principal.tenant, self._ids.new("file-"), bytes_max=self.limits.bytes_max)

    async def _check_room(self, principal: Principal, *, more_bytes: int) -> None:
        files, size_bytes = await self._directory.usage(principal.tenant, principal.subject)
        limits = self.limits
        if files >= limits.files_max or size_bytes + more_bytes > limits.owner_bytes_max:
            raise TooManyFiles(
                f"you have {files} files with {size_bytes} bytes; at most {limits.files_max} files and "
                f"{limits.owner_bytes_max} bytes are kept: delete some"
            )

    async def finish(
        self,
        principal: Principal,
        upload: Upload,
        *,
        filename: str,
        purpose: str,
        expires_after_s: int | None,
        request_id: str | None = None,
    ) -> FileKept:
        """Have a file recorded that has come in whole.

        Raises:
            InvalidValue: its name, its purpose or its time is none.
            TooManyFiles: there is no room for so many bytes, or others took it meanwhile.
        """
        check_purpose(purpose)
        check_expiry(expires_after_s, param="expires_after[seconds]")
        filename = check_filename(filename)
        if upload.size_bytes == 0:
            raise InvalidValue("the file is empty", param="file")
        await self._check_room(principal, more_bytes=upload.size_bytes)
        await upload.close()
        now_us = self._clock.now_us()
        added = FileAdded(
            file_id=upload.file_id,
            owner=principal.subject,
            filename=filename,
            purpose=purpose,
            size_bytes=upload.size_bytes,
            sha256=upload.sha256,
            chunks=upload.chunks,
            expires_at_us=None if expires_after_s is None else now_us + expires_after_s * 1_000_000,
            added_at_us=now_us,
        )
        context = context_of(principal, request_id=request_id)
        upload.may_be_recorded = True
        appended = await self._store.append(file_stream(added.file_id), [added], expected_version=0, context=context)
        return FileKept(tenant=principal.tenant, position=appended.position, added=added)

    async def page(self, principal: Principal, query: FileQuery) -> FilePage:
        """A page in the order in which the files came, or against it.

        Raises:
            InvalidValue: ``after`` is no file of theirs.
        """
        after = None
        if query.after is not None:
            if FILE_ID.fullmatch(query.after):
                after = await self._directory.place(principal.tenant, principal.subject, query.after)
            if after is None:
                raise InvalidValue(f"after is {query.after!r:.100}, which is no file of yours", param="after")
        wanted = FileFilter(
            tenant=principal.tenant, owner=principal.subject, purpose=query.purpose, at_us=self._clock.now_us()
        )
        found = await self._directory.files(
            wanted, after_position=after, limit=query.limit + 1, descending=query.descending
        )
        return FilePage(files=found[: query.limit], has_more=len(found) > query.limit)

    async def get(self, principal: Principal, file_id: str) -> FileKept:
        """A file.

        Raises:
            FileNotFound: there is none with this id for ``principal``.
        """
        known = FILE_ID.fullmatch(file_id) is not None
        kept = await self._directory.file(principal.tenant, file_id) if known else None
        if (
            kept is None
            or kept.is_over(self._clock.now_us())
            or not may_use(principal, tenant=kept.tenant, owner=kept.added.owner)
        ):
            raise FileNotFound(f"no file {file_id!r:.100} was found")
        return kept

    async def read(self, kept: FileKept) -> AsyncGenerator[bytes, None]:
        """The bytes of a file, piece by piece.

        Raises:
            LogCorrupt: they are not those that its event speaks of; known at the end.
        """
        digest = hashlib.sha256()
        for number in range(kept.added.chunks):
            data = await self._content.read(kept.tenant, kept.added.file_id, number)
            if data is None:
                raise LogCorrupt(f"piece {number} of file {kept.added.file_id} is missing")
            digest.update(data)
            if number == kept.added.chunks - 1 and digest.hexdigest() != kept.added.sha256:
                raise LogCorrupt(f"the bytes of file {kept.added.file_id} are not those that were recorded")
            yield data

    async def delete(self, principal: Principal, file_id: str, *, request_id: str | None = None) -> None:
        """Destroy a file.

        Raises:
            FileNotFound: as ``get``.
        """
        kept = await self.get(principal, file_id)
        await self._end(kept, context_of(principal, request_id=request_id), reason="deleted")

    async def keep_sweeping(self) -> None:
        """Destroy what has expired, and what a crash left; runs as long as the server does."""
        while True:
            await self._clock.sleep(self._every_s)
            await self.sweep()

    async def sweep(self) -> int:
        """Destroy what has expired or belongs to no file; how many files it was."""
        now_us = self._clock.now_us()
        due = await self._directory.due_files(now_us=now_us, limit=SWEEP_PAGE)
        for kept in due:
            await self._end(kept, EventContext(tenant=kept.tenant, actor="manent"), reason="expired")
        return len(due) + await self._content.sweep(before_us=now_us - ORPHAN_S * 1_000_000)

    async def _end(self, kept: FileKept, context: EventContext, *, reason: str) -> None:
        file_id = kept.added.file_id
        deleted = FileDeleted(
            file_id=file_id, reason=reason, deleted_by=context.actor, deleted_at_us=self._clock.now_us()
        )
        with suppress(VersionConflict):  # somebody else was faster
            await self._store.append(file_stream(file_id), [deleted], expected_version=1, context=context)
        await self._content.drop(kept.tenant, file_id)
