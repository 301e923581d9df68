"""The committer's part on SQLite: one connection in one thread, one transaction and one fsync for each batch."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from manent.adapters.store.batch import AppendRequest, Batch, Head, KeptAnswer
from manent.adapters.store.committer import BatchRefused, Verdicts
from manent.adapters.store.frontier import HEADER_FIELDS, pack_frontier, unpack_frontier
from manent.adapters.store.known_log import KnownLog
from manent.domain.ports import Clock
from manent.domain.records import Appended

# A checkpoint for every 16 MiB of the write-ahead log: pages that many batches change are copied once for all of them.
PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "recursive_triggers=ON",
    "wal_autocheckpoint=4096",
)
SWEEP_EVERY_US = 60 * 1_000_000

_NAMES = ", ".join(HEADER_FIELDS)
# Headers come in one statement, through a table in memory: what the triggers need to abort a statement is then made
# once for a batch. An INSERT for each header takes twice as long.
_STAGING = ("PRAGMA temp_store=MEMORY", f"CREATE TEMP TABLE staged_headers ({_NAMES})")
_STAGE_HEADER = f"INSERT INTO temp.staged_headers VALUES ({', '.join('?' * len(HEADER_FIELDS))})"  # noqa: S608 (our own names)
_INSERT_STAGED = f"INSERT INTO event_headers ({_NAMES}) SELECT {_NAMES} FROM temp.staged_headers ORDER BY rowid"  # noqa: S608 (our own names)
_EMPTY_STAGE = "DELETE FROM temp.staged_headers"
_INSERT_PAYLOAD = "INSERT INTO event_payloads (position, encoding, salt, payload) VALUES (?, ?, ?, ?)"
_INSERT_NODE = "INSERT INTO tree_nodes (level, node, hash) VALUES (?, ?, ?)"
_INSERT_MODEL = "INSERT INTO event_models (model_id, position) VALUES (?, ?)"
_INSERT_OPEN = "INSERT INTO open_completions (tenant, completion_id, stream_id, position) VALUES (?, ?, ?, ?)"
_INSERT_COMPLETION = "INSERT INTO completions (tenant, completion_id, position) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_DELETE_OPEN = "DELETE FROM open_completions WHERE tenant = ? AND completion_id = ?"
_PUT_ANSWER = (
    "INSERT OR REPLACE INTO idempotency_keys (scope, key, request_digest, position, stream_version, recorded_at_us) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)
_MOVE_HEAD = "UPDATE log_head SET position = ?, recorded_at_us = ?, frontier = ?, root = ?"
_SELECT_VERSIONS = (
    "SELECT key, (SELECT max(stream_version) FROM event_headers "
    "WHERE tenant = json_extract(value, '$[0]') AND stream_id = json_extract(value, '$[1]')) FROM json_each(?)"
)
_SELECT_ANSWER = (
    "SELECT request_digest, position, stream_version, recorded_at_us FROM idempotency_keys "
    "WHERE scope = ? AND key = ? AND recorded_at_us > ?"
)


class SQLiteBatchWriter:
    """Implements ``BatchWriter``. A connection that failed is replaced before the next batch."""

    def __init__(self, path: Path, *, clock: Clock, lock_wait_s: float, keys_kept_s: float) -> None:
        self._path = path
        self._clock = clock
        self._lock_wait_s = lock_wait_s
        self._keys_kept_us = int(keys_kept_s * 1_000_000)
        self._swept_at_us = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-writer")
        self._known = KnownLog()
        self._connection: sqlite3.Connection | None = None

    async def write(self, requests: Sequence[AppendRequest]) -> Verdicts:
        """See ``BatchWriter.write``."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, requests)

    async def aclose(self) -> None:
        """See ``BatchWriter.aclose``."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    def _write(self, requests: Sequence[AppendRequest]) -> Verdicts:
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            batch = self._judged(connection, requests)
            if not batch.headers:
                connection.execute("ROLLBACK")
                return batch.verdicts
            _write_rows(connection, batch)
        except (sqlite3.Error, ValueError) as error:  # ValueError: a value cannot be encoded
            self._disconnect()
            raise BatchRefused(self._reason(error), retry_alone=not _is_busy(error)) from error
        except BaseException:
            self._disconnect()  # a defect: the transaction must not stay open
            raise
        return self._committed(connection, batch)

    def _committed(self, connection: sqlite3.Connection, batch: Batch) -> Verdicts:
        """Commit; where that fails, look whether it happened all the same."""
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._disconnect()
            if not self._holds(*batch.last_event):
                raise BatchRefused(self._reason(error), retry_alone=not _is_busy(error)) from error
        else:
            self._known.keep(batch)
        return batch.verdicts

    def _holds(self, position: int, event_id: str) -> bool:
        try:
            found = (
                self._connected()
                .execute("SELECT event_id FROM event_headers WHERE position = ?", (position,))
                .fetchone()
            )
        except sqlite3.Error:
            return False
        return found is not None and found[0] == event_id

    def _judged(self, connection: sqlite3.Connection, requests: Sequence[AppendRequest]) -> Batch:
        log_id, position, recorded_at_us, frontier = connection.execute(
            "SELECT log_id, position, recorded_at_us, frontier FROM log_head"
        ).fetchone()
        now_us = self._clock.now_us()
        head = Head(log_id=log_id, recorded_at_us=recorded_at_us, frontier=unpack_frontier(position, frontier))
        if self._known.head != head:
            self._known.forget()
        versions, unknown = self._known.versions(requests)
        if unknown:
            found = connection.execute(_SELECT_VERSIONS, (json.dumps(unknown),))
            versions |= {unknown[number]: version or 0 for number, version in found}
        batch = Batch(
            head=head,
            now_us=now_us,
            versions=versions,
            kept_answers=self._kept_answers(connection, requests, now_us),
        )
        batch.judge(requests)
        if now_us - self._swept_at_us > SWEEP_EVERY_US:
            self._swept_at_us = now_us
            connection.execute("DELETE FROM idempotency_keys WHERE recorded_at_us <= ?", (now_us - self._keys_kept_us,))
        return batch

    def _kept_answers(
        self, connection: sqlite3.Connection, requests: Sequence[AppendRequest], now_us: int
    ) -> dict[tuple[str, str], KeptAnswer]:
        answers = {}
        for key in {request.idempotency for request in requests if request.idempotency is not None}:
            found = connection.execute(_SELECT_ANSWER, (key.scope, key.key, now_us - self._keys_kept_us)).fetchone()
            if found is not None:
                digest, position, stream_version, recorded_at_us = found
                answers[key.scope, key.key] = KeptAnswer(
                    request_digest=digest,
                    appended=Appended(position=position, stream_version=stream_version),
                    recorded_at_us=recorded_at_us,
                )
        return answers

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, timeout=self._lock_wait_s, isolation_level=None)
            for statement in (*(f"PRAGMA {pragma}" for pragma in PRAGMAS), *_STAGING):
                self._connection.execute(statement)
        return self._connection

    def _disconnect(self) -> None:
        """Close the connection; an open transaction is rolled back with it."""
        connection, self._connection = self._connection, None
        self._known.forget()
        if connection is not None:
            connection.close()

    def _reason(self, error: Exception) -> str:
        return f"the database {self._path.name} refused: {error}"


def _write_rows(connection: sqlite3.Connection, batch: Batch) -> None:
    connection.executemany(_STAGE_HEADER, batch.headers)
    connection.execute(_INSERT_STAGED)
    connection.execute(_EMPTY_STAGE)
    connection.executemany(_INSERT_PAYLOAD, batch.payloads)
    opened = [(o.tenant, o.completion_id, o.stream_id, position) for o, position in batch.opened]
    answers = [
        (*place, kept.request_digest, kept.appended.position, kept.appended.stream_version, kept.recorded_at_us)
        for place, kept in batch.answers.items()
    ]
    statements: tuple[tuple[str, Sequence[tuple[Any, ...]]], ...] = (
        (_INSERT_NODE, batch.nodes),
        (_INSERT_MODEL, batch.models),
        (_INSERT_OPEN, opened),
        (_INSERT_COMPLETION, batch.in_sessions),
        (_DELETE_OPEN, batch.closed),
        (_PUT_ANSWER, answers),
        *batch.session_statements(),
    )
    for statement, rows in statements:
        if rows:
            connection.executemany(statement, rows)
    frontier = batch.head.frontier
    connection.execute(_MOVE_HEAD, (frontier.size, batch.head.recorded_at_us, pack_frontier(frontier), frontier.root))


def _is_busy(error: Exception) -> bool:
    """Whether another program holds the lock: every append of the batch would wait for it just as long."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
