"""Files: what they are, what they may be, and where their bytes lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from manent.domain.batch_events import FileAdded
from manent.domain.errors import DomainError, InvalidValue
from manent.domain.subscriptions import Lease

CHUNK_BYTES = 1024 * 1024
FILENAME_CHARS_MAX = 255
FILE_ID = re.compile(r"file-[0-9A-Za-z_-]{1,64}")
EXPIRES_S_MIN = 3600
EXPIRES_S_MAX = 30 * 24 * 3600

BATCH_INPUT = "batch"
BATCH_OUTPUT = "batch_output"
PURPOSES = (BATCH_INPUT,)
"""What files may be uploaded for."""


class FileNotFound(DomainError):
    """There is no such file: never was, not any more, or it is somebody else's."""

    code = "file_not_found"
    param = "file_id"


class TooManyFiles(DomainError):
    """An owner has as many files, or as many bytes in them, as it may have."""

    code = "too_many_files"


class FileTooLarge(DomainError):
    """A file is over the bound on one."""

    code = "file_too_large"
    param = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """Bounds: bytes of a file; files, and bytes in all of them, of an owner. What batches put out is counted too."""

    bytes_max: int = 200_000_000
    files_max: int = 1_000
    owner_bytes_max: int = 5_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKept:
    """A file that is there, and the position of its event in the log."""

    tenant: str
    position: int
    added: FileAdded

    def is_over(self, now_us: int) -> bool:
        """Whether its time is up."""
        return self.added.expires_at_us is not None and self.added.expires_at_us <= now_us


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFilter:
    """Which files of an owner: those whose time is not up at ``at_us``."""

    tenant: str
    owner: str
    purpose: str | None = None
    at_us: int = 0


class FileContent(Protocol):
    """The bytes of files, in pieces with numbers from 0, beside the log and in its database.

    Every method raises StoreUnavailable where the database refuses or does not answer.
    """

    async def put(self, tenant: str, file_id: str, number: int, data: bytes, *, lease: Lease | None = None) -> None:
        """Keep a piece; with a ``lease`` only as long as that is held.

        Raises:
            VersionConflict: there is one with this number: somebody else writes this file, or did.
            LeaseLost: the lease is another's.
        """
        ...

    async def read(self, tenant: str, file_id: str, number: int) -> bytes | None:
        """A piece; None where there is none."""
        ...

    async def drop(self, tenant: str, file_id: str, *, first: int = 0, lease: Lease | None = None) -> None:
        """Destroy the pieces from number ``first`` on; with a ``lease`` only as long as that is held."""
        ...

    async def sweep(self, *, before_us: int) -> int:
        """Destroy what was begun before that time and belongs to no file: how many files it was.

        A tenant's pieces stay as long as a batch of its, made before that time, has not ended: they may be its answers.
        """
        ...


def check_filename(name: str) -> str:
    """The file's name without folders.

    Raises:
        InvalidValue: it is none.
    """
    base = re.split(r"[/\\]", name)[-1]
    if not 1 <= len(base) <= FILENAME_CHARS_MAX or not base.isprintable():
        raise InvalidValue(f"the file's name must be 1 to {FILENAME_CHARS_MAX} printable characters", param="file")
    return base


def check_purpose(purpose: str) -> None:
    """Raise InvalidValue unless files may be uploaded for this."""
    if purpose not in PURPOSES:
        raise InvalidValue(
            f"Manent keeps no files for the purpose {purpose!r:.80}; it keeps those for {', '.join(PURPOSES)}: images "
            "go into messages as data URLs",
            param="purpose",
        )


def check_expiry(seconds: int | None, *, param: str) -> None:
    """Raise InvalidValue unless a file may be kept for so long."""
    if seconds is not None and not EXPIRES_S_MIN <= seconds <= EXPIRES_S_MAX:
        raise InvalidValue(f"{param} is {seconds}; it must be {EXPIRES_S_MIN} to {EXPIRES_S_MAX}", param=param)
