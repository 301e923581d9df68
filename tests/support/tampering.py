"""Damage to a log, one value at a time, undone after each look; fast enough to try every byte of every column."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manent.adapters.store.codec import header_bytes
from manent.adapters.store.frontier import HEADER_FIELDS, pack_frontier
from manent.domain.merkle import Frontier, leaf_hash
from manent.domain.records import EventHeader

Value = int | str | bytes


def flips(value: Value) -> Iterator[Value]:
    """``value`` with one bit of one of its bytes turned, each byte once; which bit changes from byte to byte."""
    raw = value.to_bytes(8, "big", signed=True) if isinstance(value, int) else _raw(value)
    for place in range(len(raw)):
        turned = bytearray(raw)
        turned[place] ^= 1 << place % 8
        yield int.from_bytes(turned, "big", signed=True) if isinstance(value, int) else bytes(turned)


def _raw(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


class Table:
    """A table whose values are changed and put back; ``where`` picks the row."""

    def __init__(self, path: Path, table: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._table = table
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.execute("PRAGMA ignore_check_constraints=ON")
        for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            self._connection.execute(f"DROP TRIGGER {name}")

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def damaged(self, column: str, where: str) -> Iterator[Value]:
        """For as long as each value is held, the row is damaged; what the table's keys refuse is left out."""
        (value,) = self._connection.execute(f"SELECT {column} FROM {self._table} WHERE {where}").fetchone()
        (rowid,) = self._connection.execute(f"SELECT rowid FROM {self._table} WHERE {where}").fetchone()
        for turned in flips(value):
            cast = "CAST(? AS TEXT)" if isinstance(value, str) else "?"
            try:
                self._set(column, cast, turned, rowid)
            except sqlite3.IntegrityError:
                continue
            moved = turned if column == self._rowid_name() else rowid
            yield turned
            self._set(column, "?", value, moved)

    def _set(self, column: str, cast: str, value: Any, rowid: Any) -> None:
        self._connection.execute(f"UPDATE {self._table} SET {column} = {cast} WHERE rowid = ?", (value, rowid))

    def _rowid_name(self) -> str:
        return {"event_headers": "position", "event_payloads": "position", "log_head": "id", "checkpoints": "size"}.get(
            self._table, ""
        )


def hash_again(path: Path) -> None:
    """Make tree head and frontier fit whatever headers there are: what whoever holds the database can always do."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute(f"SELECT {', '.join(HEADER_FIELDS)} FROM event_headers ORDER BY position").fetchall()
        headers = [EventHeader(**dict(zip(HEADER_FIELDS, row, strict=True))) for row in rows]
        frontier = Frontier().extended([leaf_hash(header_bytes(header)) for header in headers])
        connection.execute(
            "UPDATE log_head SET position = ?, frontier = ?, root = ?, recorded_at_us = ?",
            (frontier.size, pack_frontier(frontier), frontier.root, headers[-1].recorded_at_us),
        )
    connection.close()
