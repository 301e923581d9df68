"""The committer's part on PostgreSQL: one connection, and one transaction under the head's lock for each batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

import asyncpg
from sqlalchemy import URL

from manent.adapters.store.batch import AppendRequest, Batch, Head, KeptAnswer, StreamKey
from manent.adapters.store.committer import BatchRefused, Verdicts
from manent.adapters.store.frontier import pack_frontier, unpack_frontier
from manent.adapters.store.known_log import KnownLog
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
from manent.adapters.store.postgres_rows import writing
from manent.domain.ports import Clock
from manent.domain.records import Appended

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
# A statement of its own: those that follow see what was committed while this one waited for the lock.
_LOCK_HEAD = "SELECT FROM log_head FOR UPDATE"
_READ = (
    "SELECT log_id, position, recorded_at_us, frontier, ARRAY("
    "SELECT coalesce(h.stream_version, 0) "
    "FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k(tenant, stream_id, n) "
    "LEFT JOIN stream_heads h ON h.tenant = k.tenant AND h.stream_id = k.stream_id ORDER BY k.n) AS versions "
    "FROM log_head"
)
_SELECT_ANSWERS = (
    "SELECT i.* FROM unnest($1::text[], $2::text[]) AS k(scope, key) "
    "JOIN idempotency_keys i ON i.scope = k.scope AND i.key = k.key WHERE i.recorded_at_us > $3"
)
_SWEEP = "DELETE FROM idempotency_keys WHERE recorded_at_us <= $1"
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
        self._known = KnownLog()
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
            await self._commit(connection, batch)
            self._known.keep(batch)
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
        await self._begin(connection)
        batch = await self._judged(connection, requests)
        if not batch.headers:
            await connection.execute("ROLLBACK")
            return batch
        await self._partitions.make(connection, batch.head.frontier.size)
        statement, values = writing(batch, self._node_id)
        await connection.execute(statement, *values)
        for statement, rows in batch.session_statements():
            await connection.executemany(numbered(statement), rows)
        return batch

    async def _commit(self, connection: Connection, batch: Batch) -> None:
        """Move the head and commit, in one message; where its answer is lost, look whether it happened all the same."""
        try:
            async with asyncio.timeout(self._limits.answer_s):
                await connection.execute(_move_head_and_commit(batch.head))
        except DRIVER_ERRORS as error:
            self._disconnect()
            if not await self._holds(*batch.last_event, error):
                raise BatchRefused(self._refusal(error), retry_alone=False) from error
        except BaseException:
            self._disconnect()
            raise

    async def _holds(self, position: int, event_id: str, error: Exception) -> bool:
        """Whether a COMMIT whose answer was lost happened.

        The head's lock is taken first: the old transaction may still be about to commit, and holds it until then.
        """
        try:
            async with asyncio.timeout(self._limits.outcome_s):
                while True:
                    with suppress(*DRIVER_ERRORS):
                        async with asyncio.timeout(self._limits.answer_s):
                            return await self._looked_up(position) == event_id
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            self._disconnect()
            raise BatchRefused(
                f"{self._refusal(error)}; whether the last append was committed is not known: read before it is "
                "repeated, or repeat it with its idempotency key",
                retry_alone=False,
            ) from error

    async def _looked_up(self, position: int) -> str | None:
        connection = await self._reconnected()
        await connection.execute(f"BEGIN; {_LOCK_HEAD}")
        event_id: str | None = await connection.fetchval(_SELECT_EVENT_ID, position)
        await connection.execute("ROLLBACK")
        return event_id

    async def _begin(self, connection: Connection) -> None:
        """Begin, and lock the head; forget what is known where another node has moved it since."""
        known = self._known.head
        if known is None:
            await connection.execute(f"BEGIN; {_LOCK_HEAD}")
            return
        root = known.frontier.root.hex()
        lock_known = f"SELECT FROM log_head WHERE position = {known.frontier.size} AND root = '\\x{root}' FOR UPDATE"
        if await connection.execute(f"BEGIN; {lock_known}") != "SELECT 1":
            self._known.forget()
            await connection.execute(_LOCK_HEAD)

    async def _judged(self, connection: Connection, requests: Sequence[AppendRequest]) -> Batch:
        head = self._known.head
        versions, unknown = self._known.versions(requests)
        if head is None or unknown:
            head, found = await self._read(connection, unknown)
            versions.update(found)
        now_us = self._clock.now_us()
        batch = Batch(
            head=head,
            now_us=now_us,
            versions=versions,
            kept_answers=await self._kept_answers(connection, requests, now_us),
        )
        batch.judge(requests)
        if now_us - self._swept_at_us > SWEEP_EVERY_US:
            self._swept_at_us = now_us
            await connection.execute(_SWEEP, now_us - self._keys_kept_us)
        return batch

    async def _read(self, connection: Connection, streams: Sequence[StreamKey]) -> tuple[Head, dict[StreamKey, int]]:
        """The head, and the versions of ``streams``; under the head's lock."""
        tenants, stream_ids = [tenant for tenant, _ in streams], [stream_id for _, stream_id in streams]
        row = await connection.fetchrow(_READ, tenants, stream_ids)
        if row is None:
            raise BatchRefused(
                f"the database {self._url.database} has no log yet; `manent serve` makes it", retry_alone=False
            )
        head = Head(
            log_id=row["log_id"],
            recorded_at_us=row["recorded_at_us"],
            frontier=unpack_frontier(row["position"], row["frontier"]),
        )
        return head, dict(zip(streams, row["versions"], strict=True))

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
        self._known.forget()
        drop(connection)

    def _refusal(self, error: BaseException) -> str:
        return f"the database {self._url.database} refused: {reason(error)}"


def _move_head_and_commit(head: Head) -> str:
    """Three statements in one message, which takes no parameters; the values are numbers and hexadecimal digits."""
    position, frontier = head.frontier.size, head.frontier
    return (
        f"UPDATE log_head SET position = {position}, recorded_at_us = {head.recorded_at_us}, "  # noqa: S608 (as said)
        f"frontier = '\\x{pack_frontier(frontier).hex()}', root = '\\x{frontier.root.hex()}'; "
        f"SELECT pg_notify('{CHANNEL}', '{position}'); COMMIT"
    )
