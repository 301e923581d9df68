"""Servers that share a log and a Valkey, as far as sessions go: each with its own store, cache and breaker."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.layered import GuardedContextCache, LayeredContextCache
from manent.adapters.projections.lru import LruContextCache
from manent.adapters.projections.redis_contexts import ContextLimits, RedisContextCache
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.adapters.store.sqlite import SQLiteEventStore
from manent.app.system import RandomIds, SystemClock
from manent.domain.session import SessionState
from manent.domain.usecases.sessions import Sessions

TIMEOUT_S = 0.2


@dataclass
class Node:
    """A server's sessions, and the parts they are made of."""

    store: SQLiteEventStore
    near: LruContextCache
    shared: RedisContextCache
    breaker: CircuitBreaker
    sessions: Sessions

    def forget_near(self) -> None:
        """What a restart of the server does to its memory."""
        self.near.clear()


@asynccontextmanager
async def sharing_node(
    path: Path,
    redis_url: str,
    *,
    log_id: str = "log_1",
    retry_s: float = 0.05,
    timeout_s: float = TIMEOUT_S,
    limits: ContextLimits | None = None,
) -> AsyncGenerator[Node, None]:
    """A node on the log in ``path`` and on the Redis at ``redis_url``."""
    ids = RandomIds()
    store = SQLiteEventStore(path, clock=SystemClock(), ids=ids)
    link = RedisLink(redis_url, RedisLimits(timeout_s=timeout_s))
    shared = RedisContextCache(link, log_id=log_id, ids=ids, limits=limits)
    near, breaker = LruContextCache(budget_bytes=10**8), CircuitBreaker(period_s=retry_s)
    layered = LayeredContextCache(near, GuardedContextCache(shared, breaker))
    try:
        yield Node(store=store, near=near, shared=shared, breaker=breaker, sessions=Sessions(store, layered))
    finally:
        await shared.aclose()
        await store.aclose()


async def folded(store: SQLiteEventStore, tenant: str, session_id: str) -> SessionState:
    """What the log says, asked without any cache."""
    return await Sessions(store, LruContextCache(budget_bytes=0)).load(tenant, session_id)
