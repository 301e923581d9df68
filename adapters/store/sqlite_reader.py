"""Reading a SQLite file in one trip to a thread: what every turn of a conversation waits for.

Through SQLAlchemy the same look-up takes a trip for each of its steps, from BEGIN to COMMIT: five times as long.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from manent.adapters.store.sqlite_address import sqlite_address
from manent.domain.errors import StoreUnavailable

T = TypeVar("T")


class SQLiteReader:
    """A few threads with a connection each, opened when they are first needed."""

    def __init__(self, path: Path, *, threads_max: int, lock_wait_s: float) -> None:
        self._path = path
        self._lock_wait_s = lock_wait_s
        self._threads = ThreadPoolExecutor(max_workers=threads_max, thread_name_prefix="sqlite-read")
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` returns, run in one of the threads.

        Raises:
            StoreUnavailable: the database refused.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, work)

    async def aclose(self) -> None:
        """Wait for what is being read, then close the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._connections:
            connection.close()

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connection())
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the database {self._path.name} refused: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            # It is used by its own thread alone, and closed by another once that has ended.
            found = sqlite3.connect(
                sqlite_address(self._path),
                uri=True,
                timeout=self._lock_wait_s,
                isolation_level=None,
                check_same_thread=False,
            )
            self._own.connection = found
            self._connections.append(found)
        return found
