"""Limits that are shared as long as that works, and this process's own while it does not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from manent.domain.limits import Charge, Limiter, Taken


class Breaker(Protocol):
    """A circuit breaker; what is raised inside an attempt as CacheUnavailable goes no further."""

    def attempt(self) -> AbstractContextManager[bool]:
        """Whether to try now."""
        ...


class GuardedLimiter(Limiter):
    """Asks ``shared`` behind a circuit breaker, and ``own`` where that does not answer.

    So each server allows as much as all were allowed together, for as long as Redis is away: too much rather than
    nothing. ``fallbacks`` counts the checks that were made here for that reason; metrics read it.
    """

    def __init__(self, shared: Limiter, own: Limiter, breaker: Breaker) -> None:
        self._shared = shared
        self._own = own
        self._breaker = breaker
        self._own_leases: set[str] = set()
        self.fallbacks = 0

    async def take(self, charges: Sequence[Charge], *, lease: str = "", enforced: bool = True) -> Taken:
        """See ``Limiter.take``."""
        with self._breaker.attempt() as allowed:
            if allowed:
                return await self._shared.take(charges, lease=lease, enforced=enforced)
        self.fallbacks += 1
        taken = await self._own.take(charges, lease=lease, enforced=enforced)
        if taken.allowed and lease:
            self._own_leases.add(lease)
        return taken

    async def settle(self, corrections: Sequence[Charge], *, lease: str) -> None:
        """See ``Limiter.settle``; what cannot be told to Redis is left to lapse there."""
        if lease in self._own_leases:
            self._own_leases.discard(lease)
            await self._own.settle(corrections, lease=lease)
            return
        with self._breaker.attempt() as allowed:
            if allowed:
                await self._shared.settle(corrections, lease=lease)
