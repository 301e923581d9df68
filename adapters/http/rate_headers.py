"""The headers in which OpenAI's API tells how much of a limit is left; one limit each for requests and for tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from manent.domain.limits import Level, Measure

MILLISECONDS = 1000


def rate_headers(levels: Sequence[Level]) -> Mapping[str, str]:
    """The limit that is nearest to its end, of requests and of tokens."""
    headers: dict[str, str] = {}
    for measure, tightest in _tightest(levels):
        headers[f"x-ratelimit-limit-{measure}"] = str(tightest.limit.amount)
        headers[f"x-ratelimit-remaining-{measure}"] = str(tightest.remaining)
        headers[f"x-ratelimit-reset-{measure}"] = duration(tightest.reset_s)
    return headers


def anthropic_rate_headers(levels: Sequence[Level], now: datetime) -> Mapping[str, str]:
    """The same in Anthropic's words, which tell the time at which all is there again (RFC 3339, rounded up)."""
    headers: dict[str, str] = {}
    for measure, tightest in _tightest(levels):
        reset = now + timedelta(seconds=math.ceil(tightest.reset_s))
        headers[f"anthropic-ratelimit-{measure}-limit"] = str(tightest.limit.amount)
        headers[f"anthropic-ratelimit-{measure}-remaining"] = str(tightest.remaining)
        headers[f"anthropic-ratelimit-{measure}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def _tightest(levels: Sequence[Level]) -> Iterator[tuple[Measure, Level]]:
    for measure in (Measure.REQUESTS, Measure.TOKENS):
        some = [level for level in levels if level.limit.measure is measure]
        if some:
            yield measure, min(some, key=_room)


def _room(level: Level) -> tuple[float, float, float]:
    return -level.wait_s, level.remaining / level.limit.amount, -level.reset_s


def duration(seconds: float) -> str:
    """As OpenAI writes it: ``17ms``, ``1s``, ``6m0s``, ``1h0m0s``; rounded up, so that nobody comes too early."""
    milliseconds = math.ceil(seconds * MILLISECONDS - 1e-6)
    if milliseconds < MILLISECONDS:
        return f"{milliseconds}ms"
    minutes, rest_ms = divmod(milliseconds, 60 * MILLISECONDS)
    text = f"{rest_ms / MILLISECONDS:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
