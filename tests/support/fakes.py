"""Time, ids and randomness under the test's control."""

from __future__ import annotations

import asyncio
import itertools


class FakeClock:
    """A clock that moves only when it is told to, or slept on."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us
        self.slept_s: list[float] = []

    def now_us(self) -> int:
        """See ``Clock.now_us``."""
        return self._now_us

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; negative sets the clock back."""
        self._now_us += int(seconds * 1_000_000)

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass at once."""
        self.slept_s.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)


class CountingIds:
    """Ids 1, 2, 3 …; salts and seeds that repeat from run to run."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self, prefix: str) -> str:
        """See ``Ids.new``."""
        return f"{prefix}{next(self._numbers):032x}"

    def salt(self) -> bytes:
        """See ``Ids.salt``."""
        return next(self._numbers).to_bytes(32, "big")

    def event(self) -> tuple[str, bytes]:
        """See ``Ids.event``."""
        salt = self.salt()
        return self.new("evt_"), salt

    def seed(self) -> int:
        """See ``Ids.seed``."""
        return next(self._numbers)
