"""Plain rows of a database, a page at a time, in a thread of their own: for whoever reads the log without trust.

SQLAlchemy makes an object of each row, which costs more than hashing it; here the driver's tuples are all there is.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from manent.adapters.store.sqlite_address import sqlite_address
from manent.domain.errors import StoreUnavailable

LOCK_WAIT_S = 5.0

_Read = Callable[[sqlite3.Cursor], Sequence[Sequence[Any]]]


class RowError(Exception):
    """A statement met a value that it cannot work with: damage, to be looked at column by column."""


class Rows(Protocol):
    """Statements with ``?`` for values; each is its own transaction."""

    dialect: str

    async def fetch(self, statement: str, *values: object) -> Sequence[Sequence[Any]]:
        """All rows.

        Raises:
            RowError: a value is not of the kind that the statement needs.
            StoreUnavailable: the database refused or did not answer.
        """
        ...

    async def fetch_within(self, bytes_max: int, statement: str, *values: object) -> Sequence[Sequence[Any]]:
        """The first rows, as many as hold little more than ``bytes_max`` in their last column together, at least one.

        Raises as ``fetch`` does.
        """
        ...

    async def aclose(self) -> None:
        """Give the connection back."""
        ...


class SQLiteRows:
    """Implements ``Rows``. Text that is not UTF-8 comes as it is, with surrogates for its stray bytes.

    With ``strict`` such text is an error, and all other text comes much faster.
    """

    dialect = "sqlite"

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        self._path = path
        self._text: Callable[[bytes], str] = str if strict else _text
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-rows")
        self._connection: sqlite3.Connection | None = None

    async def fetch(self, statement: str, *values: object) -> Sequence[Sequence[Any]]:
        """See ``Rows.fetch``."""
        return await self._in_thread(_all, statement, values)

    async def fetch_within(self, bytes_max: int, statement: str, *values: object) -> Sequence[Sequence[Any]]:
        """See ``Rows.fetch_within``."""
        return await self._in_thread(partial(_within, bytes_max), statement, values)

    async def aclose(self) -> None:
        """See ``Rows.aclose``."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    async def _in_thread(self, read: _Read, statement: str, values: Sequence[object]) -> Sequence[Sequence[Any]]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._fetch, read, statement, values)

    def _fetch(self, read: _Read, statement: str, values: Sequence[object]) -> Sequence[Sequence[Any]]:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    sqlite_address(self._path), uri=True, timeout=LOCK_WAIT_S, isolation_level=None
                )
                self._connection.text_factory = self._text
            return read(self._connection.execute(statement, tuple(values)))
        except UnicodeEncodeError:
            return []  # asked for a text that was no UTF-8 when it was read: as a value it equals nothing
        except sqlite3.Error as error:
            # An error of a function in the statement (not of the file, a lock, the disk) has the plain code.
            if getattr(error, "sqlite_errorname", "") in {"SQLITE_ERROR", "SQLITE_MISMATCH"}:
                raise RowError(str(error)) from error
            raise StoreUnavailable(f"the database {self._path.name} refused: {error}") from error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _all(cursor: sqlite3.Cursor) -> Sequence[Sequence[Any]]:
    return cursor.fetchall()


def _within(bytes_max: int, cursor: sqlite3.Cursor) -> Sequence[Sequence[Any]]:
    rows, held = [], 0
    for row in cursor:
        rows.append(row)
        held += len(row[-1] or b"")
        if held > bytes_max:
            cursor.close()  # the statement must not stay open: it would hold a view of the database
            break
    return rows


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
