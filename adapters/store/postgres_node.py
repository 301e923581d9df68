"""A node's presence in a shared database: a lock by which the others see that it lives, and the ear for commits."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import URL

from manent.adapters.store.postgres_link import (
    CHANNEL,
    DRIVER_ERRORS,
    Connection,
    PostgresLimits,
    connect,
    drop,
    reason,
)
from manent.domain.errors import StoreUnavailable
from manent.domain.waiting import set_within

HEARTBEAT_S = 5.0
RECONNECT_DELAYS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)

_log = logging.getLogger("manent.store")


class PostgresNode:
    """Holds the advisory lock ``node_id`` for as long as this process lives, on a connection that also LISTENs.

    The server gives the lock back however the process ends; there is no lease to renew and no clock to trust. A
    connection that breaks is replaced within seconds. ``on_commit`` hears the last position of each batch that any
    node commits, and None after a connection was replaced, since some were missed.
    """

    def __init__(
        self, url: URL, *, node_id: int, limits: PostgresLimits, on_commit: Callable[[int | None], None]
    ) -> None:
        self._url = url
        self._node_id = node_id
        self._limits = limits
        self._on_commit = on_commit
        self._lost = asyncio.Event()
        self._connection: Connection | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Appear.

        Raises:
            StoreUnavailable: the database does not answer, or another process has this node's id.
        """
        try:
            await self._appear()
        except DRIVER_ERRORS as error:
            raise StoreUnavailable(f"the database {self._url.database} does not answer: {reason(error)}") from error
        self._keeping = asyncio.create_task(self._keep(), name="postgres-node")

    async def aclose(self) -> None:
        """Disappear."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait({keeping})
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=self._limits.connect_s)
            except DRIVER_ERRORS:
                drop(connection)

    async def _appear(self) -> None:
        lost = self._lost = asyncio.Event()
        connection = await connect(self._url, self._limits)
        try:
            connection.add_termination_listener(lambda _: lost.set())
            locked = await connection.fetchval("SELECT pg_try_advisory_lock($1)", self._node_id)
            await connection.add_listener(CHANNEL, self._on_notification)
        except BaseException:
            drop(connection)
            raise
        if not locked:
            drop(connection)
            raise ConnectionError(f"node {self._node_id} is present already")
        self._connection = connection

    def _on_notification(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        with suppress(ValueError):  # anybody may say anything on the channel
            self._on_commit(int(str(payload)))

    async def _keep(self) -> None:
        while True:
            await set_within(self._lost, HEARTBEAT_S)
            if not await self._answers():
                await self._reappear()

    async def _answers(self) -> bool:
        if self._connection is None or self._lost.is_set():
            return False
        try:
            await self._connection.execute("SELECT 1", timeout=self._limits.answer_s)
        except DRIVER_ERRORS:
            return False
        return True

    async def _reappear(self) -> None:
        connection, self._connection = self._connection, None
        drop(connection)
        for attempt in itertools.count():
            await asyncio.sleep(RECONNECT_DELAYS_S[min(attempt, len(RECONNECT_DELAYS_S) - 1)])
            try:
                await self._appear()
                break
            except DRIVER_ERRORS as error:
                if attempt == 0:
                    _log.warning("this node is not present in %s: %s", self._url.database, reason(error))
        self._on_commit(None)  # some may have been missed
        _log.info("this node is present in %s again", self._url.database)


PRESENT_NODES = (
    "SELECT (classid::bigint << 32) | objid::bigint AS node FROM pg_locks WHERE locktype = 'advisory' "
    "AND objsubid = 1 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
