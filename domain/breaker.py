"""The circuit breaker of a model: after repeated failures it is kept out for a growing, bounded time. Pure rules.

Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Circuit(StrEnum):
    """``half_open``: one request may try; its success closes the circuit, its failure opens it for longer."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When the circuit opens, and for how long.

    Attributes:
        crashes_tolerated: crashes in a row after which the model is started again at once.
        open_s: how long it stays open first; twice as long each time after that.
        open_max_s: the longest that it stays open.
    """

    crashes_tolerated: int = 2
    open_s: float = 1.0
    open_max_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Failures in a row, and what follows from them."""

    failures: int = 0
    open_until_s: float | None = None
    crashed: bool = False
    reason: str = ""

    def circuit(self, now_s: float) -> Circuit:
        """Whether requests may go on to the model."""
        if self.open_until_s is None:
            return Circuit.CLOSED
        return Circuit.OPEN if now_s < self.open_until_s else Circuit.HALF_OPEN

    def wait_s(self, now_s: float) -> float:
        """How long it stays open from now on."""
        return max(0.0, (self.open_until_s or now_s) - now_s)

    def load_failed(self, reason: str, *, now_s: float, policy: BreakerPolicy) -> Breaker:
        """A load failed: it opens at once, so that a broken model costs one load in ``open_s`` at most."""
        return self._failed(reason, crashed=False, opens=True, now_s=now_s, policy=policy)

    def runner_crashed(self, reason: str, *, now_s: float, policy: BreakerPolicy) -> Breaker:
        """A loaded model crashed: it opens once that was not tolerated any more."""
        opens = self.failures >= policy.crashes_tolerated
        return self._failed(reason, crashed=True, opens=opens, now_s=now_s, policy=policy)

    def loaded(self) -> Breaker:
        """A load succeeded: this ends a series of failed loads. Whether a crash repeats itself shows only in use."""
        return self if self.crashed else Breaker()

    def _failed(self, reason: str, *, crashed: bool, opens: bool, now_s: float, policy: BreakerPolicy) -> Breaker:
        doublings = max(0, self.failures - policy.crashes_tolerated)
        # The exponent is bounded before it is used: two to the power of a year of failures is no float.
        open_s = min(policy.open_max_s, policy.open_s * 2.0 ** min(doublings, 32))
        return replace(
            self,
            failures=self.failures + 1,
            open_until_s=now_s + open_s if opens else None,
            crashed=crashed,
            reason=reason,
        )
