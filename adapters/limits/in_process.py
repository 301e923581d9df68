"""Limits of one process: exact, since nothing else runs between a look and a write of its event loop."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from manent.domain.limits import Bucket, Charge, Limit, Limiter, Measure, Taken, has_room, level_after

KEYS_MAX = 100_000


def monotonic_us() -> int:
    """Microseconds of a clock that nobody sets."""
    return time.monotonic_ns() // 1000


class InProcessLimiter(Limiter):
    """Keeps the ``keys_max`` buckets that were used last, each at most until it is empty again.

    Somebody who asks from more addresses than that makes it forget those that were used least lately, and never grow.
    """

    def __init__(self, *, keys_max: int = KEYS_MAX, now_us: Callable[[], int] = monotonic_us) -> None:
        self._keys_max = keys_max
        self._now_us = now_us
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._running: dict[str, set[str]] = {}
        self._leases: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._buckets) + len(self._running)

    async def take(self, charges: Sequence[Charge], *, lease: str = "", enforced: bool = True) -> Taken:
        """See ``Limiter.take``."""
        now_us = self._now_us()
        found = [self._used(charge.limit, now_us) for charge in charges]
        fits = [has_room(charge, used) for charge, used in zip(charges, found, strict=True)]
        allowed = all(fits) or not enforced
        if allowed:
            for charge, used in zip(charges, found, strict=True):
                self._add(charge, used, now_us, lease)
        levels = (level_after(charge, used, taken=allowed) for charge, used in zip(charges, found, strict=True))
        return Taken(allowed, tuple(levels))

    async def settle(self, corrections: Sequence[Charge], *, lease: str) -> None:
        """See ``Limiter.settle``."""
        now_us = self._now_us()
        for correction in corrections:
            self._add(correction, self._used(correction.limit, now_us), now_us, "")
        for key in self._leases.pop(lease, ()):
            holders = self._running[key]
            holders.discard(lease)
            if not holders:
                del self._running[key]

    def _used(self, limit: Limit, now_us: int) -> float:
        key = limit.key
        if limit.measure is Measure.RUNNING:
            return len(self._running.get(key, ()))
        bucket = self._buckets.get(key)
        if bucket is None:
            return 0.0
        return bucket.drained(now_us, amount=limit.amount, period_s=limit.period_s).used

    def _add(self, charge: Charge, used: float, now_us: int, lease: str) -> None:
        key = charge.limit.key
        if charge.limit.measure is Measure.RUNNING:
            self._running.setdefault(key, set()).add(lease)
            self._leases.setdefault(lease, []).append(key)
            return
        now_used = used + charge.cost
        self._buckets.pop(key, None)
        if now_used > 0:
            self._buckets[key] = Bucket(now_used, now_us)
        while len(self._buckets) > self._keys_max:
            self._buckets.popitem(last=False)
