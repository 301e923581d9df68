"""Buffers of streams in a Valkey, as a server has them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.adapters.projections.stream_limits import StreamLimits
from manent.adapters.projections.stream_redis import RedisStreams
from manent.app.system import RandomIds
from tests.support.valkey import ValkeyServer


@dataclass(frozen=True)
class OpenedStreams:
    """A buffer, and the connection below it."""

    buffer: RedisStreams
    link: RedisLink


@asynccontextmanager
async def redis_streams(
    valkey: ValkeyServer,
    *,
    log_id: str | None = None,
    timeout_s: float = 0.2,
    limits: StreamLimits | None = None,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[OpenedStreams, None]:
    """A buffer that leaves a Valkey that fails alone for a minute; closed at the end."""
    link = RedisLink(valkey.url, RedisLimits(timeout_s=timeout_s))
    breaker = CircuitBreaker(period_s=60.0, monotonic_s=monotonic_s)
    buffer = RedisStreams(link, breaker, log_id=log_id or RandomIds().new("log_"), limits=limits)
    try:
        yield OpenedStreams(buffer, link)
    finally:
        await buffer.aclose()
