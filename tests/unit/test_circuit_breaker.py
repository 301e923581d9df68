"""The circuit breaker: one timeout a period, one probe at a time."""

from __future__ import annotations

import asyncio

import pytest

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.layered import GuardedContextCache
from manent.domain.projections import CacheUnavailable
from manent.domain.session import SessionState


class World:
    """A clock, a breaker with a period of ten seconds, and a cache that is there or not, and counts who asks."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.breaker = CircuitBreaker(period_s=10.0, monotonic_s=lambda: self.now_s)
        self.guarded = GuardedContextCache(self, self.breaker)
        self.away = False
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, tenant: str, session_id: str) -> SessionState | None:
        """Count, wait, and answer or fail."""
        self.asked += 1
        away = self.away
        await self.gate.wait()
        if away:
            raise CacheUnavailable("away")
        return SessionState(session_id=session_id, tenant=tenant)

    async def put(self, state: SessionState, *, before: SessionState | None = None) -> None:
        """As ``get``."""
        del before
        await self.get(state.tenant, state.session_id)

    async def forget(self, tenant: str, session_id: str) -> None:
        """As ``get``."""
        await self.get(tenant, session_id)

    async def use(self) -> bool:
        """Whether the cache was of use."""
        return await self.guarded.get("acme", "s") is not None


async def test_after_a_failure_nobody_asks_for_a_period() -> None:
    """Not to read, write or forget; then one asks, and a success closes the circuit."""
    world = World()
    assert await world.use()
    world.away = True
    for _ in range(5):
        assert not await world.use()
        await world.guarded.put(SessionState(session_id="s", tenant="acme"))
        await world.guarded.forget("acme", "s")
    assert world.asked == 2
    world.now_s += 10.0
    assert not await world.use()
    assert not await world.use()
    assert world.asked == 3
    world.away = False
    world.now_s += 10.0
    assert await world.use()
    assert await world.use()
    assert not world.breaker.is_open


async def test_only_one_probes() -> None:
    """While the probe waits for its answer the others do without."""
    world = World()
    world.away = True
    await world.use()
    world.now_s += 10.0
    world.away = False
    world.gate.clear()
    probe = asyncio.create_task(world.use())
    await asyncio.sleep(0)
    assert [await world.use() for _ in range(5)] == [False] * 5
    world.gate.set()
    assert await probe
    assert (world.asked, await world.use()) == (2, True)


async def test_a_probe_that_is_cancelled_is_no_verdict() -> None:
    """Its client left; the next one probes, at once."""
    world = World()
    world.away = True
    await world.use()
    world.now_s += 10.0
    world.away = False
    world.gate.clear()
    probe = asyncio.create_task(world.use())
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert world.breaker.is_open
    world.gate.set()
    assert await world.use()


async def test_an_old_answer_does_not_close_the_circuit() -> None:
    """What was asked before the failure says nothing about the time after it."""
    world = World()
    world.gate.clear()
    slow = asyncio.create_task(world.use())
    await asyncio.sleep(0)
    world.away = True
    failing = asyncio.create_task(world.use())
    await asyncio.sleep(0)
    world.breaker._failed(CacheUnavailable("away"))
    world.gate.set()
    assert await slow
    assert not await failing
    assert world.breaker.is_open


async def test_a_defect_is_not_hidden() -> None:
    """Only a cache that does not answer is excused."""
    world = World()
    with pytest.raises(ZeroDivisionError), world.breaker.attempt():
        raise ZeroDivisionError
    assert not world.breaker.is_open
