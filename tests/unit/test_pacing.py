"""How much of a prompt is evaluated at once: as much as those who generate can bear."""

from __future__ import annotations

import pytest

from manent.adapters.inference.pacing import PrefillPace


def settled(pace: PrefillPace, *, usual_s: float, token_s: float, steps: int = 60) -> tuple[float, int]:
    """The longest step among so many that hold a chunk, in usual ones, and the chunk at the end."""
    longest = 0.0
    for _ in range(5):
        pace.took(usual_s, decoding=True, prefilled=False)
    for _ in range(steps):
        chunk = pace.chunk_tokens(decoding=True)
        step_s = usual_s + chunk * token_s
        longest = max(longest, step_s / usual_s)
        pace.took(step_s, decoding=True, prefilled=True)
    return longest, pace.chunk_tokens(decoding=True)


@pytest.mark.parametrize("token_s", [0.0005, 0.002, 0.005])
def test_nobody_waits_longer_than_three_times_as_long_as_usual(token_s: float) -> None:
    """From the first chunk on, whatever a token costs beside a step."""
    longest, chunk = settled(PrefillPace(64), usual_s=0.09, token_s=token_s)
    assert longest <= 3
    assert 8 <= chunk <= 64


def test_cheap_tokens_come_in_large_chunks() -> None:
    """A device that evaluates them quickly is not held up."""
    assert settled(PrefillPace(256), usual_s=0.02, token_s=0.00001)[1] == 256


def test_chunks_have_a_smallest_size() -> None:
    """Where even that is too much, the prompt has to come in all the same."""
    assert settled(PrefillPace(64), usual_s=0.001, token_s=0.1)[1] == 8


def test_where_nobody_generates_chunks_are_large() -> None:
    """There is nobody whom they would keep waiting; and such steps say nothing about those that do."""
    pace = PrefillPace(64)
    assert pace.chunk_tokens(decoding=False) == 64
    pace.took(100.0, decoding=False, prefilled=True)
    assert pace.chunk_tokens(decoding=False) == 64
    assert pace.chunk_tokens(decoding=True) == 8


def test_before_anything_was_measured_chunks_stay_small() -> None:
    """A step with a chunk says nothing where no step without one is known."""
    pace = PrefillPace(64)
    pace.took(0.5, decoding=True, prefilled=True)
    assert pace.chunk_tokens(decoding=True) == 8
