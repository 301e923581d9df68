"""Where the output of running completions is kept beside this process: in Redis, or in files of the home."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.adapters.projections.stream_files import FileStreams
from manent.adapters.projections.stream_limits import StreamLimits
from manent.adapters.projections.stream_redis import RedisStreams
from manent.app.settings import Settings
from manent.domain.streams import StreamBuffer


@asynccontextmanager
async def stream_buffer(settings: Settings, log_id: str) -> AsyncGenerator[StreamBuffer, None]:
    """What the settings say, for as long as the context lasts. Nothing is asked of Redis here."""
    limits = StreamLimits(
        stream_bytes_max=settings.stream_bytes_max,
        total_bytes_max=settings.streams_bytes_max,
        keep_s=settings.stream_keep_s,
    )
    if settings.redis_url is None:
        files = FileStreams(settings.home / "streams", limits)
        try:
            yield files
        finally:
            files.close()
        return
    # Connections of its own: readers of streams must not keep contexts waiting.
    link = RedisLink(
        settings.redis_url,
        RedisLimits(connections_max=settings.redis_connections_max, timeout_s=settings.redis_timeout_s),
    )
    breaker = CircuitBreaker(
        period_s=settings.redis_retry_s, consequence="streams that begin now cannot be resumed elsewhere"
    )
    shared = RedisStreams(link, breaker, log_id=log_id, limits=limits)
    try:
        yield shared
    finally:
        await shared.aclose()
