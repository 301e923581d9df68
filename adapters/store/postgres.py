"""The event store on PostgreSQL: one writer that commits in groups under the head's lock, and a pool of readers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sqlalchemy import URL, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from manent.adapters.store.committer import Committer
from manent.adapters.store.postgres_link import DEFAULT_LIMITS, DRIVER_ERRORS, PAGE_PLANS, PostgresLimits
from manent.adapters.store.postgres_node import PRESENT_NODES, PostgresNode
from manent.adapters.store.postgres_partitions import PARTITION_POSITIONS
from manent.adapters.store.postgres_writer import PostgresBatchWriter
from manent.adapters.store.schema import log_head
from manent.adapters.store.sql import SQLEventStore
from manent.domain.merkle import EMPTY_ROOT
from manent.domain.ports import Clock, Ids
from manent.domain.records import OpenCompletion

READERS_MAX = 8
KEYS_KEPT_S = 24 * 3600.0
ABSENT_FOR_S = 2.0

_ABSENT = text(
    "SELECT tenant, stream_id, completion_id, coalesce(node = :own, true) AS own FROM open_completions "  # noqa: S608 (a constant)
    "WHERE (CAST(:completion_id AS text) IS NULL OR completion_id = :completion_id) "
    f"AND (node IS NULL OR node = :own OR node NOT IN ({PRESENT_NODES})) ORDER BY position LIMIT :limit"
)


class PostgresEventStore(SQLEventStore):
    """The log in a database that many nodes share. Appends of all nodes stand in one order without gaps.

    ``node_id`` (random, 63 bits) is what the other nodes know this one by; without it nothing that is opened here is
    protected from their recovery, which suits a process that only reads.
    """

    def __init__(
        self,
        url: URL,
        *,
        clock: Clock,
        ids: Ids,
        node_id: int | None = None,
        keys_kept_s: float = KEYS_KEPT_S,
        limits: PostgresLimits = DEFAULT_LIMITS,
        partition_positions: int = PARTITION_POSITIONS,
    ) -> None:
        writer = PostgresBatchWriter(
            url,
            clock=clock,
            keys_kept_s=keys_kept_s,
            limits=limits,
            node_id=node_id,
            partition_positions=partition_positions,
        )
        super().__init__(
            committer=Committer(writer),
            readers=_readers(url, limits),
            ids=ids,
            name=str(url.database),
            driver_errors=DRIVER_ERRORS,
        )
        self._node_id = node_id
        self._node: PostgresNode | None = None
        if node_id is not None:
            self._node = PostgresNode(url, node_id=node_id, limits=limits, on_commit=self._committer.announce)

    async def start(self) -> None:
        """Appear to the other nodes, and hear of their commits.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        if self._node is not None:
            await self._node.start()

    async def orphaned_completions(self, *, completion_id: str | None = None, limit: int = 100) -> list[OpenCompletion]:
        """See ``EventStore.orphaned_completions``: those whose node was absent at two looks, some seconds apart.

        The second look spares a node whose connection broke and is being replaced.
        """
        found = await self._absent(completion_id, limit)
        if any(not own for own in found.values()):
            await asyncio.sleep(ABSENT_FOR_S)
            still = await self._absent(completion_id, limit)
            found = {completion: own for completion, own in found.items() if completion in still}
        return list(found)

    async def aclose(self) -> None:
        """Commit what waits, then disappear and close every connection."""
        await super().aclose()
        if self._node is not None:
            await self._node.aclose()

    async def _absent(self, completion_id: str | None, limit: int) -> dict[OpenCompletion, bool]:
        """Open completions of absent nodes and of this one, each with whether it is this one's (or nobody's)."""
        wanted = {"completion_id": completion_id, "own": self._node_id, "limit": limit}
        async with self._reading() as connection:
            return {
                OpenCompletion(tenant=row.tenant, stream_id=row.stream_id, completion_id=row.completion_id): row.own
                for row in await connection.execute(_ABSENT, wanted)
            }


async def ensure_postgres_log(url: URL, ids: Ids, limits: PostgresLimits = DEFAULT_LIMITS) -> None:
    """Give a new database the identity and the head of its log; an existing one keeps its own."""
    engine = create_async_engine(url, poolclass=NullPool, connect_args=_connect_arguments(limits))
    head = {"id": 1, "log_id": ids.new("log_"), "position": 0, "recorded_at_us": 0, "frontier": b"", "root": EMPTY_ROOT}
    try:
        async with engine.begin() as connection:
            if (await connection.execute(log_head.select())).first() is None:
                await connection.execute(insert(log_head).values(head).on_conflict_do_nothing())
    finally:
        await engine.dispose()


def postgres_subscription_engine(url: URL) -> AsyncEngine:
    """An engine for ``SQLSubscriptionStore``, of one connection."""
    return _readers(url, DEFAULT_LIMITS, connections_max=1)


def _readers(url: URL, limits: PostgresLimits, *, connections_max: int = READERS_MAX) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=limits.connect_s,
        pool_pre_ping=True,
        connect_args=_connect_arguments(limits, PAGE_PLANS),
    )


def _connect_arguments(limits: PostgresLimits, settings: Mapping[str, str] | None = None) -> dict[str, object]:
    return {
        "timeout": limits.connect_s,
        "command_timeout": limits.answer_s,
        "server_settings": {**limits.server_settings(), **(settings or {})},
    }
