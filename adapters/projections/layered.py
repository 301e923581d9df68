"""The cache of a server: this process first, and behind it the one that all servers share, as long as it answers."""

from __future__ import annotations

from manent.adapters.projections.breaker import CircuitBreaker
from manent.domain.ports import ContextCache
from manent.domain.session import SessionState


class GuardedContextCache:
    """A cache behind a circuit breaker: while it is away nothing is known, and nothing fails."""

    def __init__(self, cache: ContextCache, breaker: CircuitBreaker) -> None:
        self._cache = cache
        self._breaker = breaker

    async def get(self, tenant: str, session_id: str) -> SessionState | None:
        """See ``ContextCache.get``."""
        with self._breaker.attempt() as allowed:
            if allowed:
                return await self._cache.get(tenant, session_id)
        return None

    async def put(self, state: SessionState, *, before: SessionState | None = None) -> None:
        """See ``ContextCache.put``."""
        with self._breaker.attempt() as allowed:
            if allowed:
                await self._cache.put(state, before=before)

    async def forget(self, tenant: str, session_id: str) -> None:
        """See ``ContextCache.forget``."""
        with self._breaker.attempt() as allowed:
            if allowed:
                await self._cache.forget(tenant, session_id)


class LayeredContextCache:
    """``near`` is asked first; what only ``far`` knows is kept near as well."""

    def __init__(self, near: ContextCache, far: ContextCache) -> None:
        self._near = near
        self._far = far

    async def get(self, tenant: str, session_id: str) -> SessionState | None:
        """See ``ContextCache.get``."""
        state = await self._near.get(tenant, session_id)
        if state is None:
            state = await self._far.get(tenant, session_id)
            if state is not None:
                await self._near.put(state)
        return state

    async def put(self, state: SessionState, *, before: SessionState | None = None) -> None:
        """See ``ContextCache.put``."""
        await self._near.put(state, before=before)
        await self._far.put(state, before=before)

    async def forget(self, tenant: str, session_id: str) -> None:
        """See ``ContextCache.forget``."""
        await self._near.forget(tenant, session_id)
        await self._far.forget(tenant, session_id)
