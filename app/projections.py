"""The shared side of sessions put together: contexts in Redis where the settings name one, and their projector."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.layered import GuardedContextCache, LayeredContextCache
from manent.adapters.projections.lru import LruContextCache
from manent.adapters.projections.redis_contexts import ContextLimits, RedisContextCache
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.adapters.store.database import open_subscription_engine
from manent.adapters.store.subscriptions import SQLSubscriptionStore
from manent.app.settings import Settings
from manent.app.system import RandomIds
from manent.domain.ports import Clock, ContextCache, EventStore
from manent.domain.subscriptions import SubscriptionStore
from manent.domain.usecases.log_reader import LogReader, LogSignal
from manent.domain.usecases.project_contexts import ProjectContexts


@dataclass(frozen=True, slots=True, kw_only=True)
class Projections:
    """Contexts that several servers share, and where the projector's checkpoint is."""

    shared: RedisContextCache
    link: RedisLink
    subscriptions: SubscriptionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """The cache that the use cases ask, and its parts, for whoever looks at how they do."""

    cache: ContextCache
    near: LruContextCache
    breaker: CircuitBreaker | None = None


@asynccontextmanager
async def shared_projections(settings: Settings, log_id: str, clock: Clock) -> AsyncGenerator[Projections | None, None]:
    """What the settings say about sharing, for as long as the context lasts; None where there is no Redis.

    Nothing is asked of Redis here: a server starts without it as well.
    """
    if settings.redis_url is None:
        yield None
        return
    limits = RedisLimits(connections_max=settings.redis_connections_max, timeout_s=settings.redis_timeout_s)
    link = RedisLink(settings.redis_url, limits)
    shared = RedisContextCache(
        link,
        log_id=log_id,
        ids=RandomIds(),
        limits=ContextLimits(ttl_s=settings.redis_ttl_s, session_bytes_max=settings.redis_session_bytes_max),
    )
    engine = open_subscription_engine(settings.database)
    try:
        yield Projections(shared=shared, link=link, subscriptions=SQLSubscriptionStore(engine, clock=clock))
    finally:
        await engine.dispose()
        await shared.aclose()


def contexts(settings: Settings, projections: Projections | None) -> Contexts:
    """The contexts of a server: this process's, and behind them the shared ones."""
    near = LruContextCache(budget_bytes=settings.cache_bytes)
    if projections is None:
        return Contexts(cache=near, near=near)
    breaker = CircuitBreaker(period_s=settings.redis_retry_s)
    cache = LayeredContextCache(near, GuardedContextCache(projections.shared, breaker))
    return Contexts(cache=cache, near=near, breaker=breaker)


def projector(settings: Settings, projections: Projections, store: EventStore, clock: Clock) -> ProjectContexts:
    """What follows the log into the shared contexts."""
    signal = LogSignal()
    store.observe(signal.notify)
    return ProjectContexts(
        store=store,
        shared=projections.shared,
        reader=LogReader(store, signal),
        subscriptions=projections.subscriptions,
        clock=clock,
        owner=RandomIds().new("node_"),
        kept_for_s=settings.redis_ttl_s,
    )
