"""When a draft model is used: where it was measured to pay."""

from __future__ import annotations

from manent.adapters.inference.draft_pace import DraftPace


def steps(pace: DraftPace, count: int, *, plain_s: float, drafted_s: float, drafted_tokens: int) -> list[int]:
    """How many tokens were proposed for each of so many steps, which take what they are said to take."""
    proposed = []
    for _ in range(count):
        proposed.append(pace.proposals)
        drafted = bool(proposed[-1])
        pace.took(drafted_s if drafted else plain_s, tokens=drafted_tokens if drafted else 1, drafted=drafted)
    return proposed


def test_a_draft_that_pays_is_used_for_good() -> None:
    """After the steps that tell what a token costs without it."""
    proposed = steps(DraftPace(3), 200, plain_s=1.0, drafted_s=1.5, drafted_tokens=3)
    assert set(proposed[5:]) == {3}
    assert proposed[0] == 0


def test_a_draft_that_does_not_pay_rests_longer_and_longer() -> None:
    """Three tokens in four times the time: it costs ever less to see that again."""
    proposed = steps(DraftPace(3), 2000, plain_s=1.0, drafted_s=4.0, drafted_tokens=3)
    assert 0 < sum(map(bool, proposed)) < 50
    assert sum(map(bool, proposed[:500])) > sum(map(bool, proposed[1500:]))


def test_a_draft_that_pays_again_is_used_again() -> None:
    """Whether its proposals are chosen depends on what is said."""
    pace = DraftPace(3)
    steps(pace, 300, plain_s=1.0, drafted_s=4.0, drafted_tokens=1)
    assert steps(pace, 600, plain_s=1.0, drafted_s=1.5, drafted_tokens=3)[-1] == 3
