"""What the work on batches needs of the world: who finds them, and who answers a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from manent.domain.access import Principal
from manent.domain.errors import DomainError
from manent.domain.files import FileFilter, FileKept


class LineRefused(DomainError):
    """A line is no request that could be tried; ``code`` says what it is instead."""

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a batch: its number in the input file, from 1, and its bytes."""

    batch_id: str
    endpoint: str
    number: int
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LineAnswer:
    """A line for the output file, or for the error file; ``again`` where the failure may pass if it is tried again.

    ``patient`` failures are nobody's fault, as a queue that is full: the line waits as long as the batch does.
    """

    line: bytes
    succeeded: bool
    again: bool = False
    patient: bool = False
    retry_after_s: float | None = None


class BatchRequests(Protocol):
    """Reads and answers the lines of batches: as the server answers the same request of a client."""

    def check(self, line: Line, principal: Principal) -> str:
        """The ``custom_id`` of a line.

        Raises:
            LineRefused: it is no request for its endpoint, or its model is none for ``principal``.
        """
        ...

    async def answer(self, line: Line, principal: Principal) -> LineAnswer:
        """What the line is answered with; the same line twice is generated once."""
        ...

    def failed(self, line: Line, error: DomainError) -> LineAnswer:
        """What the line is answered with where ``error`` kept it from being tried."""
        ...

    def unanswered(self, line: Line, code: str, message: str) -> LineAnswer:
        """What stands in the error file for a line that was never tried."""
        ...


class WorkDirectory(Protocol):
    """The files and batches of the log: a projection, which the log's own commits keep.

    Pages are in the order of first events, or against it, behind ``after_position``. Every method raises
    StoreUnavailable where the database refuses or does not answer.
    """

    async def files(
        self, wanted: FileFilter, *, after_position: int | None, limit: int, descending: bool
    ) -> list[FileKept]:
        """A page of an owner's files that are there."""
        ...

    async def file(self, tenant: str, file_id: str) -> FileKept | None:
        """A file that is there."""
        ...

    async def usage(self, tenant: str, owner: str) -> tuple[int, int]:
        """How many files an owner has, and how many bytes."""
        ...

    async def due_files(self, *, now_us: int, limit: int) -> list[FileKept]:
        """Files of all tenants whose time is up."""
        ...

    async def batches(
        self, tenant: str, owner: str, *, after_position: int | None, limit: int, descending: bool
    ) -> list[tuple[int, str]]:
        """Position and id of a page of an owner's batches."""
        ...

    async def place(self, tenant: str, owner: str, item_id: str) -> int | None:
        """The position of a file or batch of the owner's, also of a file that was deleted: a page may begin behind."""
        ...

    async def open_batches(self, *, limit: int) -> list[tuple[str, str, str]]:
        """Tenant, owner and id of the batches that have not ended, of all tenants, the oldest first."""
        ...

    async def count_open(self, tenant: str, owner: str) -> int:
        """How many batches of an owner have not ended."""
        ...
