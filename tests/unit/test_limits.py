"""Which limits a request is counted against, what it costs of them, and how that is told."""

from __future__ import annotations

import asyncio
import time

import pytest

from manent.adapters.http.rate_headers import duration, rate_headers
from manent.adapters.limits.in_process import InProcessLimiter
from manent.app.transport_settings import read_limits
from manent.domain.access import Principal
from manent.domain.errors import InvalidValue
from manent.domain.limits import Charge, Level, Limit, LimitedBy, Measure, RateLimited, RequestLimits
from manent.domain.telemetry import NO_TELEMETRY, NoTelemetry, Telemetry
from manent.domain.usecases.count_requests import CountRequests, LimitPolicy, Reservation, subscriber
from tests.support.fakes import CountingIds, FakeClock

ANN = Principal(tenant="acme", subject="ann", credential_id="key_1")


class Told(NoTelemetry):
    """Keeps which limits refused something."""

    def __init__(self) -> None:
        self.limits: list[str] = []

    def limited(self, limit: str) -> None:
        """See ``Telemetry.limited``."""
        self.limits.append(limit)


def counting(clock: FakeClock, telemetry: Telemetry | None = None, /, **policy: RequestLimits) -> CountRequests:
    """Counts in this process."""
    limiter = InProcessLimiter(now_us=clock.now_us)
    return CountRequests(limiter, LimitPolicy(**policy), CountingIds(), telemetry or NO_TELEMETRY)


async def requests_until_refused(counted: CountRequests, principal: Principal | None, address: str | None) -> int:
    """How many requests pass before one does not."""
    for number in range(100):
        try:
            await counted.request(principal, address)
        except RateLimited:
            return number
    return 100


@pytest.mark.parametrize("whose", ["per_key", "per_subject", "per_address"])
@pytest.mark.parametrize(("limit", "back_s"), [("requests_per_minute", 60), ("requests_per_hour", 3600)])
async def test_requests_are_limited_for_each_of_whose_they_are(whose: str, limit: str, back_s: float) -> None:
    """By key, subject and address, by minute and hour; nobody else is refused, and after the time all are back."""
    clock = FakeClock()
    counted = counting(clock, **{whose: RequestLimits(**{limit: 5})})
    assert await requests_until_refused(counted, ANN, "192.0.2.1") == 5
    bob = Principal(tenant="acme", subject="bob", credential_id="key_2")
    assert await requests_until_refused(counted, bob, "192.0.2.2") == 5
    clock.advance(back_s)
    assert await requests_until_refused(counted, ANN, "192.0.2.1") == 5


async def test_one_subject_has_one_limit_with_all_its_keys() -> None:
    """Keys of one subject do not multiply what it may ask for, and those of a namesake elsewhere are not counted."""
    counted = counting(FakeClock(), per_subject=RequestLimits(requests_per_minute=3))
    for number in range(3):
        await counted.request(Principal(tenant="acme", subject="ann", credential_id=f"key_{number}"), None)
    with pytest.raises(RateLimited, match="subject 'acme/ann': requests per minute"):
        await counted.request(ANN, None)
    await counted.request(Principal(tenant="other", subject="ann"), None)


async def test_a_keys_own_limits_go_before_those_of_all() -> None:
    """One by one: what it does not say stays as it is for everybody."""
    both = RequestLimits(requests_per_minute=2, tokens_per_minute=50)
    counted = counting(FakeClock(), per_key=both)
    own = Principal(tenant="a", subject="s", credential_id="own", limits=RequestLimits(requests_per_minute=4))
    assert await requests_until_refused(counted, own, None) == 4
    async with counted.completion(Reservation(50), principal=own, address=None, model_id="m"):
        with pytest.raises(RateLimited, match="tokens per minute"):
            async with counted.completion(Reservation(1), principal=own, address=None, model_id="m"):
                pass


async def test_whoever_is_not_recognized_is_counted_by_address() -> None:
    """So that keys cannot be guessed without an end; an address of IPv6 counts with its whole network."""
    counted = counting(FakeClock(), per_address=RequestLimits(requests_per_minute=3), per_key=RequestLimits())
    for last in ("1", "2", "3"):
        await counted.request(None, f"2001:db8::{last}")
    with pytest.raises(RateLimited, match="address '2001:db8::/64'"):
        await counted.request(None, "2001:db8::4")
    await counted.request(None, "2001:db8:0:1::4")
    await counted.request(None, None)


@pytest.mark.parametrize("whose", ["per_key", "per_subject", "per_model", "per_address"])
@pytest.mark.parametrize(("limit", "back_s"), [("tokens_per_minute", 60), ("tokens_per_hour", 3600)])
async def test_tokens_are_limited_and_corrected(whose: str, limit: str, back_s: float) -> None:
    """Reserved before, corrected after; what failed and took none costs none."""
    clock = FakeClock()
    counted = counting(clock, **{whose: RequestLimits(**{limit: 100})})

    async def complete(estimate: int, used: int) -> None:
        reservation = Reservation(estimate)
        async with counted.completion(reservation, principal=ANN, address="192.0.2.1", model_id="m"):
            assert [level.limit.measure for level in reservation.levels] == [Measure.TOKENS]
            reservation.used_tokens = used

    await complete(90, 10)
    await complete(90, 90)
    with pytest.raises(RateLimited):
        await complete(1, 1)
    clock.advance(back_s)
    await complete(100, 0)
    await complete(100, 150)
    clock.advance(back_s * 0.4)
    with pytest.raises(RateLimited):
        await complete(1, 1)
    clock.advance(back_s * 0.2)
    await complete(1, 1)


async def test_completions_of_a_model_are_requests_of_it() -> None:
    """Whoever asks; another model is another limit."""
    told = Told()
    counted = counting(FakeClock(), told, per_model=RequestLimits(requests_per_hour=1))
    async with counted.completion(Reservation(1), principal=ANN, address=None, model_id="m"):
        pass
    other = Principal(tenant="other", subject="bob")
    with pytest.raises(RateLimited, match="model 'm': requests per hour"):
        async with counted.completion(Reservation(1), principal=other, address=None, model_id="m"):
            pass
    async with counted.completion(Reservation(1), principal=other, address=None, model_id="n"):
        pass
    assert told.limits == ["model requests"]


async def test_what_runs_is_limited_and_ends_also_in_failure() -> None:
    """A completion that fails or is cancelled gives its place back as one that succeeds does."""
    counted = counting(FakeClock(), per_key=RequestLimits(running_max=1))

    async def run(gate: asyncio.Event) -> None:
        async with counted.completion(Reservation(0), principal=ANN, address=None, model_id="m"):
            await gate.wait()
            raise InvalidValue("it failed")

    for cancelled in (False, True):
        gate = asyncio.Event()
        running = asyncio.create_task(run(gate))
        await asyncio.sleep(0)
        with pytest.raises(RateLimited, match="running completions"):
            await run(gate)
        running.cancel() if cancelled else gate.set()
        await asyncio.wait([running])
        assert running.cancelled() or isinstance(running.exception(), InvalidValue)
    done = asyncio.Event()
    done.set()
    with pytest.raises(InvalidValue):
        await run(done)


async def test_what_is_kept_is_bounded() -> None:
    """A hundred thousand addresses leave what the bound says; what was emptied leaves nothing."""
    limiter = InProcessLimiter(keys_max=1000, now_us=FakeClock().now_us)
    for number in range(20_000):
        await limiter.take([Charge(Limit(LimitedBy.ADDRESS, str(number), Measure.REQUESTS, 5, 3600))])
    assert len(limiter) == 1000
    held = Limit(LimitedBy.KEY, "k", Measure.TOKENS, 5, 3600)
    await limiter.take([Charge(held, 5)])
    await limiter.settle([Charge(held, -5)], lease="")
    assert len(limiter) == 999


async def test_in_real_time_a_limit_lets_through_its_rate() -> None:
    """Twice as long, twice as much behind the first burst: a ratio, whatever the machine does."""
    limiter = InProcessLimiter()
    limit = Limit(LimitedBy.KEY, "k", Measure.REQUESTS, 12_000, 60)
    await limiter.take([Charge(limit, 12_000)])
    passed, waited_s = [], []
    for share_s in (0.1, 0.2):
        began = time.monotonic()
        await asyncio.sleep(share_s)
        number = 0
        while (await limiter.take([Charge(limit)])).allowed:
            number += 1
        passed.append(number)
        waited_s.append(time.monotonic() - began)
    assert passed[1] / passed[0] == pytest.approx(waited_s[1] / waited_s[0], rel=0.3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0171, "18ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (3661.5, "1h1m1.5s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    """And rounded up."""
    assert duration(seconds) == text


def test_the_tightest_limit_is_told() -> None:
    """Of several, the one that refuses, or is nearest to its end."""
    minute = Limit(LimitedBy.KEY, "k", Measure.REQUESTS, 10, 60)
    hour = Limit(LimitedBy.KEY, "k", Measure.REQUESTS, 100, 3600)
    tokens = Limit(LimitedBy.MODEL, "m", Measure.TOKENS, 1000, 60)
    levels = [Level(minute, 9, 6.0), Level(hour, 20, 2880.0), Level(tokens, 1, 59.94)]
    assert rate_headers(levels) == {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "20",
        "x-ratelimit-reset-requests": "48m0s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "1",
        "x-ratelimit-reset-tokens": "59.94s",
    }
    assert (
        rate_headers([Level(minute, 0, 60.0, wait_s=6.0), Level(hour, 0, 10.0)])["x-ratelimit-limit-requests"] == "10"
    )
    assert rate_headers([]) == {}


@pytest.mark.parametrize(
    ("address", "counts_for"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("strange", "strange"),
    ],
)
def test_addresses_count_for_subscribers(address: str, counts_for: str) -> None:
    """IPv4 for itself, however it is written; IPv6 for its network."""
    assert subscriber(address) == counts_for


def test_limits_are_read_as_an_operator_writes_them() -> None:
    """Names and numbers, by spaces or commas; what is wrong is named."""
    assert read_limits("requests_per_minute=60, running_max=4") == RequestLimits(requests_per_minute=60, running_max=4)
    assert read_limits("") == RequestLimits()
    for wrong, says in (("rpm=5", "requests_per_minute"), ("running_max=-1", "whole"), ("running_max=0", "must be 1")):
        with pytest.raises(ValueError, match=says):
            read_limits(wrong)
