"""The counters of limits put together: in Redis where the settings name one, else, or meanwhile, in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from manent.adapters.http.context import HttpLimits
from manent.adapters.http.hosts import ANY_ADDRESS, LOOPBACK, HostNames
from manent.adapters.limits.guarded import GuardedLimiter
from manent.adapters.limits.in_process import InProcessLimiter
from manent.adapters.limits.shared import SharedLimiter
from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.app.settings import Settings
from manent.app.transport_settings import listed
from manent.domain.limits import Limiter

CONNECTIONS = 2
"""What is asked at the same time is sent together: more connections would carry nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What counts, and the loop that keeps what it holds; ``fallbacks`` tells how often this process counted alone."""

    limiter: Limiter
    keep: Callable[[], Awaitable[None]] | None = None
    guarded: GuardedLimiter | None = None

    @property
    def fallbacks(self) -> int:
        """How many checks were made in this process because Redis was away."""
        return 0 if self.guarded is None else self.guarded.fallbacks


@asynccontextmanager
async def counted(settings: Settings, log_id: str) -> AsyncGenerator[Limits, None]:
    """What the settings say about counting, for as long as the context lasts. Nothing is asked of Redis here."""
    own = InProcessLimiter()
    if settings.redis_url is None:
        yield Limits(limiter=own)
        return
    link = RedisLink(settings.redis_url, RedisLimits(connections_max=CONNECTIONS, timeout_s=settings.redis_timeout_s))
    shared = SharedLimiter(link, log_id=log_id)
    breaker = CircuitBreaker(
        period_s=settings.redis_retry_s,
        consequence="limits are counted in this process alone",
    )
    guarded = GuardedLimiter(shared, own, breaker)
    try:
        yield Limits(limiter=guarded, keep=shared.keep_leases, guarded=guarded)
    finally:
        await shared.aclose()


def http_limits(settings: Settings) -> HttpLimits:
    """Whom the server answers, and the bounds on what it takes."""
    names = {*LOOPBACK, *listed(settings.hosts)}
    if settings.host not in ANY_ADDRESS:
        names.add(settings.host)
    return HttpLimits(
        hosts=HostNames(names),
        public=settings.public_parts,
        origins=settings.origins,
        proxies=settings.proxies,
        body_bytes_max=settings.body_bytes_max,
        messages_max=settings.messages_max,
        connections_max=settings.connections_max,
        streams_max=settings.streams_max,
        websockets_max=settings.websockets_max,
        websocket_requests_max=settings.websocket_requests_max,
        websocket_idle_s=settings.websocket_idle_s,
        header_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        stall_timeout_s=settings.write_timeout_s,
        retry_grace_s=settings.retry_grace_s,
    )
