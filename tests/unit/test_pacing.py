"""How much of the prompts is evaluated at once: as much as those who generate can bear."""

from __future__ import annotations

import pytest

from manent.adapters.inference.pacing import PrefillPace

PASS_S = 0.05
"""What any chunk costs, however small: the weights are read once."""


def measured(*, usual_s: float = 0.09, most_tokens: int = 64) -> PrefillPace:
    """A pace that saw steps without chunks, and one with the smallest."""
    pace = PrefillPace(most_tokens)
    for _ in range(5):
        pace.took(usual_s, decoded=True, prefilled_tokens=0)
    return pace


def settled(
    pace: PrefillPace, *, usual_s: float, token_s: float, decoding: int = 4, prefilling: int = 1
) -> list[float]:
    """How much longer than usual steps with chunks take, from the first to the sixtieth."""
    longer = []
    for _ in range(60):
        tokens = prefilling * pace.chunk_tokens(decoding=decoding, prefilling=prefilling)
        step_s = usual_s + PASS_S + tokens * token_s
        longer.append(step_s / usual_s)
        pace.took(step_s, decoded=True, prefilled_tokens=tokens)
    return longer


@pytest.mark.parametrize("token_s", [0.0005, 0.002, 0.005])
@pytest.mark.parametrize("prefilling", [1, 3])
def test_nobody_waits_longer_than_three_times_as_long_as_usual(token_s: float, prefilling: int) -> None:
    """From the first chunk on, whatever a token costs beside a step."""
    pace = measured()
    assert max(settled(pace, usual_s=0.09, token_s=token_s, prefilling=prefilling)) <= 3
    assert 8 <= pace.chunk_tokens(decoding=4, prefilling=prefilling) <= 64


def test_what_can_be_borne_is_used() -> None:
    """A prompt comes in as quickly as those who generate allow, though small chunks cost more by the token."""
    longer = settled(measured(), usual_s=0.09, token_s=0.002)
    assert min(longer[10:]) > 2.1


def test_chunks_shrink_as_tokens_become_dearer() -> None:
    """Behind a long prompt a token costs more; no step is longer for it."""
    pace = measured()
    longer = [settled(pace, usual_s=0.09, token_s=0.001 * more)[-1] for more in (1, 2, 3, 4)]
    assert max(longer) < 2.6


def test_more_prompts_than_streams_may_make_these_wait_longer() -> None:
    """One stream that pauses is less than seven first tokens that come late; four beside one prompt are not asked."""
    few, many = measured(), measured()
    assert max(settled(few, usual_s=0.09, token_s=0.002, decoding=4, prefilling=4)) <= 3
    longest = max(settled(many, usual_s=0.09, token_s=0.002, decoding=1, prefilling=7))
    assert 5 < longest <= 1 + 7 * 2


def test_cheap_tokens_come_in_large_chunks() -> None:
    """A device that evaluates them quickly is not held up."""
    pace = measured(usual_s=0.2, most_tokens=256)
    settled(pace, usual_s=0.2, token_s=0.00001)
    assert pace.chunk_tokens(decoding=4, prefilling=1) == 256


def test_chunks_have_a_smallest_size() -> None:
    """Where even that is too much, the prompt has to come in all the same."""
    pace = measured(usual_s=0.001)
    settled(pace, usual_s=0.001, token_s=0.1)
    assert pace.chunk_tokens(decoding=4, prefilling=1) == 8


def test_where_nobody_generates_chunks_are_large() -> None:
    """There is nobody whom they would keep waiting; and such steps say nothing about those that do."""
    pace = PrefillPace(64)
    pace.took(100.0, decoded=False, prefilled_tokens=64)
    assert pace.chunk_tokens(decoding=0, prefilling=1) == 64
    assert pace.chunk_tokens(decoding=1, prefilling=1) == 8


def test_before_anything_was_measured_chunks_stay_small() -> None:
    """A step with a chunk says nothing where no step without one is known."""
    pace = PrefillPace(64)
    pace.took(0.5, decoded=True, prefilled_tokens=8)
    assert pace.chunk_tokens(decoding=1, prefilling=1) == 8


def test_a_step_that_was_held_up_does_not_count_as_usual() -> None:
    """A machine that does something else for a moment is no reason to make everybody wait longer."""
    held_up, pace = measured(), measured()
    held_up.took(0.9, decoded=True, prefilled_tokens=0)
    for one in (held_up, pace):
        one.took(0.2, decoded=True, prefilled_tokens=32)
    assert held_up.chunk_tokens(decoding=4, prefilling=1) < 4 * pace.chunk_tokens(decoding=4, prefilling=1)
