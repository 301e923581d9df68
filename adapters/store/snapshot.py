"""A copy of a whole log as it stood at one moment, as a SQLite file, whatever database it is in; taken beside writers.

The tables are the same on both databases, so the copy of either is restored into either. What only PostgreSQL has
(stream heads, the list of partitions) its triggers make again: ``snapshot_postgres.py``.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Table

from manent.adapters.store.database import Database
from manent.adapters.store.schema import event_headers, event_payloads, log_head, metadata
from manent.adapters.store.snapshot_postgres import copy_from_postgres, copy_to_postgres
from manent.adapters.store.sqlite_address import sqlite_address
from manent.domain.errors import DomainError, StoreUnavailable

BUSY_WAIT_S = 5.0
PROBLEMS_MAX = 5


class SnapshotFailed(DomainError):
    """The database could not be copied, or is not what a copy can be restored into."""

    code = "snapshot_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHead:
    """Where a copy of the log ends; ``checkpoint`` is the largest signed one in it, None where there is none."""

    log_id: str
    position: int
    root: bytes
    checkpoint: str | None


async def take_snapshot(database: Database, target: Path) -> None:
    """Copy the log into the new file ``target``; writers go on meanwhile, and what they commit later is not in it.

    Raises:
        SnapshotFailed: there is no room, or the copy broke off; StoreUnavailable: the database does not answer.
    """
    if isinstance(database, Path):
        await asyncio.to_thread(_copy_sqlite, database, target)
    else:
        await copy_from_postgres(database, target, tables_in_order())


async def load_snapshot(source: Path, database: Database) -> None:
    """Copy the log of a snapshot into an empty PostgreSQL database with today's schema, all of it or nothing.

    A SQLite database is restored by putting the file in its place.

    Raises:
        SnapshotFailed: there is a log in the database already; StoreUnavailable: it refused or did not answer.
    """
    if isinstance(database, Path):
        raise TypeError("a snapshot is a SQLite database already")
    if not await copy_to_postgres(source, database, tables_in_order()):
        raise SnapshotFailed(
            f"the database {database.database} holds a log already; a backup is restored into an empty one: create it, "
            "and name it in MANENT_DATABASE_URL"
        )


def snapshot_head(path: Path) -> SnapshotHead:
    """Where a SQLite log ends.

    Raises:
        SnapshotFailed: it is no log of Manent's.
    """
    try:
        with closing(_opened(path)) as connection:
            head = connection.execute("SELECT log_id, position, root FROM log_head").fetchone()
            if head is None:
                raise SnapshotFailed(f"{path.name} holds no log yet: start `manent serve` once")
            note = connection.execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
    except sqlite3.Error as error:
        raise SnapshotFailed(f"{path.name} is no database of Manent's: {error}") from error
    return SnapshotHead(log_id=head[0], position=head[1], root=head[2], checkpoint=None if note is None else note[0])


def damage(path: Path) -> Sequence[str]:
    """What SQLite finds wrong with the file itself, at most a few sentences; empty is sound."""
    try:
        with closing(_opened(path)) as connection:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})")]
    except (sqlite3.Error, StoreUnavailable) as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def settle(path: Path) -> None:
    """Bring what lies in the write-ahead log of a SQLite file into the file, so that it stands alone.

    Raises:
        SnapshotFailed: another program uses it.
    """
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_WAIT_S, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise SnapshotFailed(f"{path.name} is in use or damaged: {error}") from error


def tables_in_order() -> Sequence[Table]:
    """All tables in an order in which the triggers of an empty database take their rows: the head is the last."""
    first = (event_payloads, event_headers)
    others = [table for table in metadata.sorted_tables if table not in (*first, log_head)]
    return (*first, *others, log_head)


def _copy_sqlite(path: Path, target: Path) -> None:
    try:
        with (
            closing(_opened(path)) as source,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            source.backup(copy)  # in one step: one moment, however long it takes, and in WAL mode nobody waits for it
        settle(target)
    except sqlite3.Error as error:
        raise SnapshotFailed(f"{path} could not be copied: {error}") from error


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(sqlite_address(path), uri=True, timeout=BUSY_WAIT_S, isolation_level=None)
