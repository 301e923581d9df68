"""Plain rows of either database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from manent.adapters.store.postgres_link import (
    DEFAULT_LIMITS,
    DRIVER_ERRORS,
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


def open_rows(database: Path | URL) -> Rows:
    """Rows of a SQLite file, or of PostgreSQL; connected when first asked."""
    return SQLiteRows(database) if isinstance(database, Path) else PostgresRows(database)


class PostgresRows:
    """Implements ``Rows`` with one connection, which is replaced after an error; statements take turns."""

    dialect = "postgresql"

    def __init__(self, url: URL) -> None:
        self._url = url
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def fetch(self, statement: str, *values: object) -> Sequence[Sequence[Any]]:
        """See ``Rows.fetch``."""
        async with self._turn:
            return await self._fetch(numbered(statement), values)

    async def _fetch(self, statement: str, values: Sequence[object]) -> Sequence[Sequence[Any]]:
        try:
            if self._connection is None:
                settings = {"statement_timeout": str(STATEMENT_MS)}
                self._connection = await connect(self._url, DEFAULT_LIMITS, settings)
            found = await self._connection.fetch(statement, *values, timeout=STATEMENT_MS / 1000)
        except DRIVER_ERRORS as error:
            connection, self._connection = self._connection, None
            drop(connection)
            raise StoreUnavailable(f"the database {self._url.database} refused: {reason(error)}") from error
        return [tuple(row) for row in found]

    async def aclose(self) -> None:
        """See ``Rows.aclose``."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
