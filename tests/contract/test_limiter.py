"""The contract of limiters: in this process, in Valkey, and guarded by a circuit breaker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from manent.adapters.limits.guarded import GuardedLimiter
from manent.adapters.limits.in_process import InProcessLimiter
from manent.adapters.limits.shared import SharedLimiter
from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.app.system import RandomIds
from manent.domain.limits import Charge, Limit, LimitedBy, Limiter, Measure
from tests.support.fakes import FakeClock
from tests.support.valkey import ValkeyServer

MINUTE = Limit(LimitedBy.KEY, "a/b:c {d}", Measure.REQUESTS, 7, 60)
HOUR = Limit(LimitedBy.SUBJECT, "acme/ann", Measure.REQUESTS, 10, 3600)
TOKENS = Limit(LimitedBy.MODEL, "org/model", Measure.TOKENS, 1000, 60)
RUNNING = Limit(LimitedBy.KEY, "key_1", Measure.RUNNING, 2)


@pytest.fixture
def clock() -> FakeClock:
    """The limiter's clock."""
    return FakeClock()


@pytest.fixture(params=["in process", "shared", "guarded"])
async def limiter(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncGenerator[Limiter, None]:
    """A limiter of each kind that has counted nothing."""
    own = InProcessLimiter(now_us=clock.now_us)
    if request.param == "in process":
        yield own
        return
    server: ValkeyServer = request.getfixturevalue("valkey")
    link = RedisLink(server.url, RedisLimits(connections_max=2, timeout_s=5.0))
    shared = SharedLimiter(link, log_id=RandomIds().new("log_"), now_us=clock.now_us)
    yield shared if request.param == "shared" else GuardedLimiter(shared, own, CircuitBreaker(period_s=1.0))
    await shared.aclose()


async def passed(limiter: Limiter, charge: Charge, times: int) -> int:
    """How many of so many at once are let through."""
    taken = await asyncio.gather(*(limiter.take([charge]) for _ in range(times)))
    return sum(one.allowed for one in taken)


async def test_of_many_at_once_exactly_the_allowed_number_passes(limiter: Limiter) -> None:
    """A thousand that come together are counted one by one."""
    limit = Limit(LimitedBy.ADDRESS, "192.0.2.1", Measure.REQUESTS, 250, 3600)
    assert await passed(limiter, Charge(limit), 1000) == 250


@pytest.mark.parametrize("amount", [1, 3, 7, 10_007])
@pytest.mark.parametrize("period_s", [60, 3600])
async def test_what_was_spent_comes_back_steadily(
    limiter: Limiter, clock: FakeClock, amount: int, period_s: int
) -> None:
    """All at once, then nothing, then one for each part of the period, and after a whole one all again."""
    limit = Limit(LimitedBy.KEY, "k", Measure.TOKENS, amount, period_s)
    assert (await limiter.take([Charge(limit, amount)])).allowed
    refused = await limiter.take([Charge(limit)])
    assert not refused.allowed
    assert refused.levels[0].remaining == 0
    assert refused.levels[0].wait_s == pytest.approx(period_s / amount)
    assert refused.levels[0].reset_s == pytest.approx(period_s)
    clock.advance(period_s / amount * 0.98)
    assert not (await limiter.take([Charge(limit)])).allowed
    clock.advance(period_s / amount * 0.03)
    assert (await limiter.take([Charge(limit)])).allowed
    assert not (await limiter.take([Charge(limit)])).allowed
    clock.advance(period_s * 5)
    full = await limiter.take([Charge(limit, amount)])
    assert full.allowed
    assert not (await limiter.take([Charge(limit)])).allowed


async def test_all_charges_are_taken_or_none(limiter: Limiter, clock: FakeClock) -> None:
    """What one limit refuses, no other limit has counted; each says how it stands, and for how long to wait."""
    for _ in range(7):
        assert (await limiter.take([Charge(MINUTE), Charge(HOUR)])).allowed
    for _ in range(3):
        refused = await limiter.take([Charge(HOUR), Charge(MINUTE), Charge(TOKENS, 400), Charge(RUNNING)], lease="l")
        assert not refused.allowed
        assert [level.limit for level in refused.levels] == [HOUR, MINUTE, TOKENS, RUNNING]
        assert [level.remaining for level in refused.levels] == [3, 0, 1000, 2]
        assert [level.wait_s > 0 for level in refused.levels] == [False, True, False, False]
    clock.advance(60)
    for _ in range(3):
        assert (await limiter.take([Charge(MINUTE), Charge(HOUR)])).allowed
    refused = await limiter.take([Charge(MINUTE), Charge(HOUR)])
    assert [level.wait_s > 0 for level in refused.levels] == [False, True]


async def test_tokens_are_corrected_when_they_are_known(limiter: Limiter) -> None:
    """Less gives back and more is owed, also beyond the limit."""
    assert (await limiter.take([Charge(TOKENS, 900)], lease="one")).levels[0].remaining == 100
    await limiter.settle([Charge(TOKENS, -890)], lease="one")
    assert (await limiter.take([Charge(TOKENS, 500)], lease="two")).levels[0].remaining == 490
    await limiter.settle([Charge(TOKENS, 1490)], lease="two")
    owing = await limiter.take([Charge(TOKENS, 1)])
    assert not owing.allowed
    assert owing.levels[0].wait_s == pytest.approx(60 + 0.06)
    await limiter.settle([Charge(TOKENS, -5000)], lease="three")
    assert (await limiter.take([Charge(TOKENS, 1000)])).allowed


async def test_more_than_the_whole_needs_the_whole(limiter: Limiter, clock: FakeClock) -> None:
    """It is not refused for ever; what it took beyond is paid later."""
    assert (await limiter.take([Charge(TOKENS, 1)])).allowed
    assert not (await limiter.take([Charge(TOKENS, 3000)])).allowed
    clock.advance(0.06)
    assert (await limiter.take([Charge(TOKENS, 3000)])).allowed
    clock.advance(119)
    assert not (await limiter.take([Charge(TOKENS, 1)])).allowed
    clock.advance(2)
    assert (await limiter.take([Charge(TOKENS, 1)])).allowed


async def test_what_is_not_enforced_is_counted(limiter: Limiter) -> None:
    """It passes, and the next one pays."""
    for _ in range(8):
        assert (await limiter.take([Charge(MINUTE)], enforced=False)).allowed
    assert not (await limiter.take([Charge(MINUTE)])).allowed


async def test_what_runs_is_bounded_until_it_ends(limiter: Limiter) -> None:
    """An end makes room for one, at once; ending twice makes no more."""
    for lease in ("one", "two"):
        assert (await limiter.take([Charge(RUNNING)], lease=lease)).allowed
    refused = await limiter.take([Charge(RUNNING)], lease="three")
    assert not refused.allowed
    assert refused.levels[0].wait_s == 1.0
    await limiter.settle([], lease="three")
    await limiter.settle([], lease="one")
    await limiter.settle([], lease="one")
    assert (await limiter.take([Charge(RUNNING)], lease="four")).allowed
    assert not (await limiter.take([Charge(RUNNING)], lease="five")).allowed


async def test_a_clock_that_is_set_back_gives_nothing_away(limiter: Limiter, clock: FakeClock) -> None:
    """Nor does it make anybody wait for longer than the period."""
    assert (await limiter.take([Charge(MINUTE, 7)])).allowed
    clock.advance(-3600)
    refused = await limiter.take([Charge(MINUTE)])
    assert not refused.allowed
    assert refused.levels[0].reset_s == pytest.approx(60)


async def test_limits_are_told_apart(limiter: Limiter) -> None:
    """By whose they are, by name, by what they count and by period."""
    kinds = [
        Limit(by, name, measure, 1, period_s)
        for by in (LimitedBy.KEY, LimitedBy.SUBJECT)
        for name in ("a", "a:b", "b", "ä", "{a}")
        for measure in (Measure.REQUESTS, Measure.TOKENS)
        for period_s in (60, 3600)
    ]
    for limit in kinds:
        assert (await limiter.take([Charge(limit)])).allowed
    for limit in kinds:
        assert not (await limiter.take([Charge(limit)])).allowed
