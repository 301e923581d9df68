"""What is kept of completions that ended, and of requests: bounded in bytes, in number and in time."""

from __future__ import annotations

from manent.adapters.http.recent_requests import RecentRequests
from manent.domain.generation import TextDelta
from manent.domain.usecases.recent_completions import DELTA_BYTES, RecentCompletions
from manent.domain.usecases.running import RunningCompletion

BYTES_MAX = 10_000


class Clock:
    """A clock that stands until a test turns it."""

    now_us = 1_000_000_000


def ended(completion_id: str, chars: int = 0) -> RunningCompletion:
    """A completion that said so much."""
    running = RunningCompletion(completion_id=completion_id, tenant="t", session_id=None)
    running.produce(TextDelta(text="x" * chars, token_ids=(1,)))
    return running


def recent(clock: Clock) -> RecentCompletions:
    """An empty one, which keeps for a minute."""
    return RecentCompletions(keep_s=60.0, bytes_max=BYTES_MAX, now_us=lambda: clock.now_us)


def test_the_last_are_kept_within_their_bytes() -> None:
    """The oldest make room; one that is over the bound alone is not kept, and costs nobody else its place."""
    kept = recent(Clock())
    completions = [ended(str(number), chars=500) for number in range(8)]
    for running in completions:
        kept.keep(running)
    found = [running for running in completions if kept.find("t", running.completion_id) is running]
    assert found == completions[-len(found) :]
    assert len(found) == BYTES_MAX // (2 * DELTA_BYTES + 4 * 500)
    kept.keep(ended("huge", chars=BYTES_MAX))
    assert kept.find("t", "huge") is None
    assert kept.find("t", "7") is completions[7]


def test_what_is_old_is_gone() -> None:
    """After its time, and also where the clock was set back; another tenant's is not found at all."""
    clock = Clock()
    kept = recent(clock)
    kept.keep(ended("a"))
    assert kept.find("t", "a") is not None
    assert kept.find("other", "a") is None
    clock.now_us += 60_000_001
    kept.keep(ended("b"))
    assert kept.find("t", "a") is None
    clock.now_us -= 10
    assert kept.find("t", "b") is None
    assert kept._bytes == 0


def test_a_repetition_takes_nothing_from_the_first() -> None:
    """The one that ran has its deltas in the pieces that readers know."""
    kept, first = recent(Clock()), ended("a")
    kept.keep(first)
    kept.keep(ended("a", chars=5))
    assert kept.find("t", "a") is first


def test_requests_are_remembered_up_to_a_number() -> None:
    """The one that was remembered longest ago goes."""
    requests = RecentRequests(remembered_max=2)
    for request, completion_id in (("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")):
        requests.remember(request, completion_id)
    assert [requests.find(request) for request in "abc"] == ["3", None, "4"]
