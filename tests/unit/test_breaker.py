"""The circuit breaker of a model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manent.domain.breaker import Breaker, BreakerPolicy, Circuit

POLICY = BreakerPolicy(crashes_tolerated=2, open_s=1.0, open_max_s=60.0)


def after(*kinds: str, now_s: float = 0.0) -> Breaker:
    """A breaker after failures, each at the end of the suspension before it."""
    breaker = Breaker()
    for kind in kinds:
        now_s += breaker.wait_s(now_s)
        fail = breaker.load_failed if kind == "load" else breaker.runner_crashed
        breaker = fail("why", now_s=now_s, policy=POLICY)
    return breaker


def test_single_crashes_are_tolerated() -> None:
    """Twice in a row the model is started again at once; the third crash opens the circuit."""
    assert after("crash", "crash").circuit(0) is Circuit.CLOSED
    assert after("crash", "crash", "crash").circuit(0) is Circuit.OPEN


def test_a_failed_load_is_not_repeated_at_once() -> None:
    """Each caller would make the server load a broken model again."""
    breaker = after("load")
    assert (breaker.circuit(0.9), breaker.circuit(1.0)) == (Circuit.OPEN, Circuit.HALF_OPEN)


def test_the_time_doubles_up_to_its_bound() -> None:
    """One, one, one, two, four seconds …, and never more than sixty."""
    waits_s = [after(*["load"] * times).wait_s(0) for times in range(1, 12)]
    opened_s = [later - earlier for earlier, later in zip([0.0, *waits_s], waits_s, strict=False)]
    assert opened_s == [1, 1, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_success_closes_it() -> None:
    """A load that succeeds ends a series of failed loads; crashes are forgiven only by an answer."""
    assert after("load", "load").loaded() == Breaker()
    assert after("crash", "crash", "crash").loaded().circuit(1.0) is Circuit.HALF_OPEN


@given(st.lists(st.sampled_from(["load", "crash"]), max_size=2000))
def test_it_is_never_open_for_longer_than_its_bound(kinds: list[str]) -> None:
    """However many failures there were: nobody is locked out for good."""
    breaker = Breaker()
    for kind in kinds:
        fail = breaker.load_failed if kind == "load" else breaker.runner_crashed
        breaker = fail("why", now_s=0.0, policy=POLICY)
        assert breaker.wait_s(0.0) <= POLICY.open_max_s
