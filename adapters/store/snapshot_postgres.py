"""PostgreSQL's side of a snapshot: its tables copied to a SQLite file in one transaction, and back in another."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Table

from manent.adapters.store.migrate import upgrade
from manent.adapters.store.postgres_link import DRIVER_ERRORS, Connection, PostgresLimits, connect, drop, reason
from manent.adapters.store.postgres_partitions import PARTITION_POSITIONS
from manent.domain.errors import StoreUnavailable
from manent.domain.merkle import EMPTY_ROOT

STATEMENT_S = 6 * 3600.0
ROWS_MAX = 500
FETCHED = {"event_payloads": ROWS_MAX // 8, "file_chunks": 8}
"""How many rows are fetched at once of the tables whose rows may be large."""
BATCH_BYTES_MAX = 32 * 1024 * 1024
_LIMITS = PostgresLimits(answer_s=STATEMENT_S)


async def copy_from_postgres(url: URL, target: Path, tables: Sequence[Table]) -> None:
    """Copy ``tables`` as they stand at one moment into the new SQLite file ``target``.

    Raises:
        StoreUnavailable: the database refused or did not answer, or the file cannot be written.
    """
    upgrade(target)
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        async with _connected(url) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            copy.execute("PRAGMA synchronous=OFF")  # whoever takes the copy writes it through at the end
            copy.execute("BEGIN")
            for table in tables:
                names = _names(table)
                order = ", ".join(column.name for column in table.primary_key)
                rows = f"SELECT {', '.join(names)} FROM {table.name} ORDER BY {order}"  # noqa: S608 (our own names)
                put = f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(names))})"  # noqa: S608 (our own names)
                cursor = await connection.cursor(rows)
                while found := await cursor.fetch(FETCHED.get(table.name, ROWS_MAX)):
                    copy.executemany(put, [tuple(row) for row in found])
            copy.execute("COMMIT")
        copy.execute("PRAGMA journal_mode=DELETE")


async def copy_to_postgres(source: Path, url: URL, tables: Sequence[Table]) -> bool:
    """Copy ``tables`` out of a SQLite file into an empty database; False, and nothing done, where it holds a log.

    The database's triggers judge every row as if it were appended; one transaction holds it all.

    Raises:
        StoreUnavailable: the database refused or did not answer.
    """
    with closing(sqlite3.connect(source.as_uri() + "?mode=ro", uri=True)) as log:
        head = log.execute("SELECT log_id, position, recorded_at_us, frontier, root FROM log_head").fetchone()
        async with _connected(url) as connection, connection.transaction():
            if await connection.fetchval("SELECT count(*) FROM log_head"):
                return False
            await connection.fetchval("SELECT manent_make_partitions($1, $2)", head[1], PARTITION_POSITIONS)
            await _copy_log(connection, log, {table.name: table for table in tables}, head)
            for table in tables:
                if table.name not in {"event_payloads", "event_headers", "log_head"}:
                    for batch in _batches(log, f"SELECT {', '.join(_names(table))} FROM {table.name}"):  # noqa: S608 (our own names)
                        await connection.copy_records_to_table(table.name, records=batch, columns=_names(table))
    return True


async def _copy_log(
    connection: Connection, log: sqlite3.Connection, tables: dict[str, Table], head: Sequence[Any]
) -> None:
    """Headers and payloads, some positions at a time, each time in front of the head, which then moves behind them."""
    log_id, size, *rest = head
    start = (0, b"", EMPTY_ROOT) if size else rest
    await connection.execute("INSERT INTO log_head VALUES (1, $1, 0, $2, $3, $4)", log_id, *start)
    headers, payloads = tables["event_headers"], tables["event_payloads"]
    pages = _batches(log, f"SELECT {', '.join(_names(headers))} FROM event_headers ORDER BY position")  # noqa: S608 (our own names)
    parts = (
        f"SELECT {', '.join(_names(payloads))} FROM event_payloads "  # noqa: S608 (our own names)
        "WHERE position BETWEEN ? AND ? ORDER BY position"
    )
    for page in pages:
        first, last = page[0][0], page[-1][0]
        for part in _batches(log, parts, first, last):
            await connection.copy_records_to_table("event_payloads", records=part, columns=_names(payloads))
        await connection.copy_records_to_table("event_headers", records=page, columns=_names(headers))
        after = rest if last == size else start
        await connection.execute(
            "UPDATE log_head SET position = $1, recorded_at_us = $2, frontier = $3, root = $4", last, *after
        )


def _names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def _batches(log: sqlite3.Connection, statement: str, *values: object) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a statement, some at a time, within a bound on what they hold."""
    batch: list[tuple[Any, ...]] = []
    held = 0
    for row in log.execute(statement, values):
        batch.append(row)
        held += sum(len(value) for value in row if isinstance(value, bytes | str))
        if len(batch) >= ROWS_MAX or held >= BATCH_BYTES_MAX:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


@asynccontextmanager
async def _connected(url: URL) -> AsyncGenerator[Connection, None]:
    connection: Connection | None = None
    try:
        connection = await connect(url, _LIMITS)
        yield connection
    except DRIVER_ERRORS as error:
        raise StoreUnavailable(f"the database {url.database} refused: {reason(error)}") from error
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the copy cannot be written or read: {error}") from error
    finally:
        drop(connection)
