"""Plain rows of either database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from manent.adapters.store.postgres_link import (
    DEFAULT_LIMITS,
    DRIVER_ERRORS,
    PAGE_PLANS,
    Connection,
    connect,
    drop,
    numbered,
    reason,
)
from manent.adapters.store.rows import Rows, SQLiteRows
from manent.domain.errors import StoreUnavailable

# A pass over a whole log, its streams in order, is one statement.
STATEMENT_MS = 6 * 3600 * 1000
# Rows of a cursor that come with one answer: a payload may have 16 MiB.
FETCH_ROWS = 128


def open_rows(database: Path | URL, *, strict: bool = False) -> Rows:
    """Rows of a SQLite file, or of PostgreSQL; connected when first asked. ``strict`` as in ``SQLiteRows``."""
    return SQLiteRows(database, strict=strict) if isinstance(database, Path) else PostgresRows(database)


class PostgresRows:
    """Implements ``Rows`` with one connection, which is replaced after an error; statements take turns."""

    dialect = "postgresql"

    def __init__(self, url: URL) -> None:
        self._url = url
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def fetch(self, statement: str, *values: object) -> Sequence[Sequence[Any]]:
        """See ``Rows.fetch``."""
        async with self._connected() as connection:
            found = await connection.fetch(numbered(statement), *values, timeout=STATEMENT_MS / 1000)
            return [tuple(row) for row in found]

    async def fetch_within(self, bytes_max: int, statement: str, *values: object) -> Sequence[Sequence[Any]]:
        """See ``Rows.fetch_within``."""
        rows: list[tuple[Any, ...]] = []
        held = 0
        async with self._connected() as connection, connection.transaction(readonly=True):
            cursor = await connection.cursor(numbered(statement), *values)
            while held <= bytes_max and (found := await cursor.fetch(FETCH_ROWS)):
                rows += [tuple(row) for row in found]
                held += sum(len(row[-1] or b"") for row in found)
        return rows

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Connection, None]:
        async with self._turn:
            try:
                if self._connection is None:
                    settings = {"statement_timeout": str(STATEMENT_MS), **PAGE_PLANS}
                    self._connection = await connect(self._url, DEFAULT_LIMITS, settings)
                yield self._connection
            except DRIVER_ERRORS as error:
                connection, self._connection = self._connection, None
                drop(connection)
                raise StoreUnavailable(f"the database {self._url.database} refused: {reason(error)}") from error

    async def aclose(self) -> None:
        """See ``Rows.aclose``."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
