"""The committer's part on PostgreSQL: one connection, and one transaction under the head's lock for each batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

import asyncpg
from sqlalchemy import URL

from manent.adapters.store.batch import AppendRequest, Batch, Head, KeptAnswer, session_statements
from manent.adapters.store.committer import BatchRefused, Verdicts
from manent.adapters.store.frontier import pack_frontier, unpack_frontier
from manent.adapters.store.postgres_link import (
    CHANNEL,
    DRIVER_ERRORS,
    Connection,
    PostgresLimits,
    blames_a_value,
    connect,
    drop,
    numbered,
    reason,
)
from manent.adapters.store.postgres_partitions import PARTITION_POSITIONS, PartitionsAhead
from manent.adapters.store.postgres_rows import WRITE, write_arguments
from manent.domain.ports import Clock
from manent.domain.records import Appended, EventHeader

REFUSALS: tuple[type[Exception], ...] = (*DRIVER_ERRORS, ValueError)  # ValueError: a value cannot be encoded
# Before its COMMIT a lost connection took its transaction with it.
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.InternalClientError,
    ConnectionError,
)
SWEEP_EVERY_US = 60 * 1_000_000
AWAY_S = 0.5
LOOK_EVERY_S = 0.2

_log = logging.getLogger("manent.store")

# Every statement of a batch looks up single keys; without statistics a new table would be read from end to end.
_PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "synchronous_commit": "on",
}
_LOCK_HEAD = "SELECT log_id, position, recorded_at_us, frontier FROM log_head FOR UPDATE"
_SELECT_VERSIONS = (
    "SELECT h.tenant, h.stream_id, h.stream_version FROM unnest($1::text[], $2::text[]) AS k(tenant, stream_id) "
    "JOIN stream_heads h ON h.tenant = k.tenant AND h.stream_id = k.stream_id"
)
_SELECT_ANSWERS = (
    "SELECT i.* FROM unnest($1::text[], $2::text[]) AS k(scope, key) "
    "JOIN idempotency_keys i ON i.scope = k.scope AND i.key = k.key WHERE i.recorded_at_us > $3"
)
_SWEEP = "DELETE FROM idempotency_keys WHERE recorded_at_us <= $1"
_MOVE_HEAD = (
    "UPDATE log_head SET position = $1, recorded_at_us = $2, frontier = $3, root = $4 "
    "RETURNING pg_notify($5, position::text)"
)
_SELECT_EVENT_ID = "SELECT event_id FROM event_headers WHERE position = $1"


class PostgresBatchWriter:
    """Implements ``BatchWriter``. A connection that failed is replaced before the next batch.

    ``node_id`` is recorded with the completions that are opened, so that other nodes can tell whose they are.
    """

    def __init__(
        self,
        url: URL,
        *,
        clock: Clock,
        keys_kept_s: float,
        limits: PostgresLimits,
        node_id: int | None = None,
        partition_positions: int = PARTITION_POSITIONS,
    ) -> None:
        self._url = url
        self._clock = clock
        self._keys_kept_us = int(keys_kept_s * 1_000_000)
        self._limits = limits
        self._node_id = node_id
        self._partitions = PartitionsAhead(size=partition_positions)
        self._swept_at_us = 0
        self._away_until_s = 0.0
        self._connection: Connection | None = None

    async def write(self, requests: Sequence[AppendRequest]) -> Verdicts:
        """See ``BatchWriter.write``."""
        idle = self._connection is not None
        try:
            try:
                connection, batch = await self._attempt(requests)
            except LOST as error:
                if not idle:
                    raise
                _log.info("the connection to %s was lost (%s); trying another", self._url.database, reason(error))
                self._disconnect()
                connection, batch = await self._attempt(requests)
        except REFUSALS as error:
            self._disconnect()
            raise BatchRefused(self._refusal(error), retry_alone=blames_a_value(error)) from error
        except BaseException:
            self._disconnect()  # cancelled, or a defect: what the connection was about to say is not known
            raise
        if batch.headers:
            await self._commit(connection, batch.headers[-1])
        return batch.verdicts

    async def aclose(self) -> None:
        """See ``BatchWriter.aclose``."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=self._limits.connect_s)
            except DRIVER_ERRORS:
                drop(connection)

    async def _attempt(self, requests: Sequence[AppendRequest]) -> tuple[Connection, Batch]:
        connection = await self._connected()
        async with asyncio.timeout(self._limits.answer_s):
            return connection, await self._written(connection, requests)

    async def _written(self, connection: Connection, requests: Sequence[AppendRequest]) -> Batch:
        """Everything but the COMMIT; where nothing was admitted, the transaction is over."""
        await connection.execute("BEGIN")
        batch = await self._judged(connection, requests)
        if not batch.headers:
            await connection.execute("ROLLBACK")
            return batch
        frontier = batch.head.frontier
        await self._partitions.make(connection, frontier.size)
        await connection.execute(WRITE, *write_arguments(batch, self._node_id))
        for statement, rows in session_statements(batch):
            await connection.executemany(numbered(statement), rows)
        await connection.execute(
            _MOVE_HEAD, frontier.size, batch.head.recorded_at_us, pack_frontier(frontier), frontier.root, CHANNEL
        )
        return batch

    async def _commit(self, connection: Connection, last: EventHeader) -> None:
        try:
            async with asyncio.timeout(self._limits.answer_s):
                await connection.execute("COMMIT")
        except DRIVER_ERRORS as error:
            self._disconnect()
            if not await self._holds(last, error):
                raise BatchRefused(self._refusal(error), retry_alone=False) from error
        except BaseException:
            self._disconnect()
            raise

    async def _holds(self, last: EventHeader, error: Exception) -> bool:
        """Whether a COMMIT whose answer was lost happened.

        The head's lock is taken first: the old transaction may still be about to commit, and holds it until then.
        """
        try:
            async with asyncio.timeout(self._limits.outcome_s):
                while True:
                    with suppress(*DRIVER_ERRORS):
                        async with asyncio.timeout(self._limits.answer_s):
                            return await self._looked_up(last)
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            self._disconnect()
            raise BatchRefused(
                f"{self._refusal(error)}; whether the last append was committed is not known: read before it is "
                "repeated, or repeat it with its idempotency key",
                retry_alone=False,
            ) from error

    async def _looked_up(self, last: EventHeader) -> bool:
        connection = await self._reconnected()
        await connection.execute("BEGIN")
        await connection.execute(_LOCK_HEAD)
        found: str | None = await connection.fetchval(_SELECT_EVENT_ID, last.position)
        await connection.execute("ROLLBACK")
        return found == last.event_id

    async def _judged(self, connection: Connection, requests: Sequence[AppendRequest]) -> Batch:
        # A statement of its own: those that follow see what was committed while this one waited for the lock.
        head = await connection.fetchrow(_LOCK_HEAD)
        if head is None:
            raise BatchRefused(
                f"the database {self._url.database} has no log yet; `manent serve` makes it", retry_alone=False
            )
        now_us = self._clock.now_us()
        streams = {request.stream for request in requests}
        columns = list(zip(*streams, strict=True))
        versions = {(row[0], row[1]): row[2] for row in await connection.fetch(_SELECT_VERSIONS, *columns)}
        batch = Batch(
            head=Head(
                log_id=head["log_id"],
                recorded_at_us=head["recorded_at_us"],
                frontier=unpack_frontier(head["position"], head["frontier"]),
            ),
            now_us=now_us,
            versions=versions,
            kept_answers=await self._kept_answers(connection, requests, now_us),
        )
        for request in requests:
            batch.judge(request)
        if now_us - self._swept_at_us > SWEEP_EVERY_US:
            self._swept_at_us = now_us
            await connection.execute(_SWEEP, now_us - self._keys_kept_us)
        return batch

    async def _kept_answers(
        self, connection: Connection, requests: Sequence[AppendRequest], now_us: int
    ) -> dict[tuple[str, str], KeptAnswer]:
        places = {request.idempotency.place for request in requests if request.idempotency is not None}
        if not places:
            return {}
        columns = list(zip(*places, strict=True))
        rows = await connection.fetch(_SELECT_ANSWERS, *columns, now_us - self._keys_kept_us)
        return {
            (row["scope"], row["key"]): KeptAnswer(
                request_digest=row["request_digest"],
                appended=Appended(position=row["position"], stream_version=row["stream_version"]),
                recorded_at_us=row["recorded_at_us"],
            )
            for row in rows
        }

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        now_s = asyncio.get_running_loop().time()
        if now_s < self._away_until_s:
            raise ConnectionError("it did not answer a moment ago")
        try:
            return await self._reconnected()
        except DRIVER_ERRORS:
            # What waits is refused at once: each batch would otherwise wait for its own timeout, one after another.
            self._away_until_s = asyncio.get_running_loop().time() + AWAY_S
            raise

    async def _reconnected(self) -> Connection:
        self._disconnect()
        self._connection = await connect(self._url, self._limits, _PLANS)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._partitions.forget()
        drop(connection)

    def _refusal(self, error: BaseException) -> str:
        return f"the database {self._url.database} refused: {reason(error)}"
