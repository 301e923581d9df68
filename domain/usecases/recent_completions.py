"""Completions that ended a short while ago, with what they produced: for readers who lost their connection."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from manent.domain.generation import TextDelta
from manent.domain.usecases.running import RunningCompletion

DELTA_BYTES = 250
LOGPROBS_BYTES = 400


class RecentCompletions:
    """The last ones, bounded in time, seconds, and by an estimate of what they take, bytes."""

    def __init__(self, *, keep_s: float = 900.0, bytes_max: int = 64 * 1024 * 1024, now_us: Callable[[], int]) -> None:
        self._keep_us = int(keep_s * 1_000_000)
        self._bytes_max = bytes_max
        self._now_us = now_us
        self._kept: OrderedDict[tuple[str, str], tuple[RunningCompletion, int, int]] = OrderedDict()
        self._bytes = 0

    def keep(self, running: RunningCompletion) -> None:
        """Keep one that has just ended, unless it is there; a repetition of it has its deltas in other pieces."""
        key = running.tenant, running.completion_id
        if key in self._kept:
            return
        size_bytes = _size_bytes(running.produced)
        if size_bytes > self._bytes_max:
            return
        self._kept[key] = running, size_bytes, self._now_us()
        self._bytes += size_bytes
        while self._bytes > self._bytes_max or self._is_old(next(iter(self._kept))):
            self._drop(next(iter(self._kept)))

    def find(self, tenant: str, completion_id: str) -> RunningCompletion | None:
        """The one with this id, if it is still there."""
        key = tenant, completion_id
        if key in self._kept and self._is_old(key):
            self._drop(key)
        found = self._kept.get(key)
        return found[0] if found is not None else None

    def _is_old(self, key: tuple[str, str]) -> bool:
        return not 0 <= self._now_us() - self._kept[key][2] <= self._keep_us

    def _drop(self, key: tuple[str, str]) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= found[1]


def _size_bytes(deltas: Sequence[TextDelta]) -> int:
    chars, logprobs = 0, 0
    for delta in deltas:
        chars += len(delta.text) + len(delta.reasoning)
        logprobs += len(delta.logprobs)
        for call in delta.tool_calls:
            chars += len(call.arguments)
    return DELTA_BYTES * (1 + len(deltas)) + 4 * chars + LOGPROBS_BYTES * logprobs
