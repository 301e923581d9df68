"""The real clock and real randomness, as the domain's ports want them."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque

RANDOM_DIGITS = 20
SALT_BYTES = 32
PIECES = 128


class SystemClock:
    """The machine's time of day."""

    def now_us(self) -> int:
        """See ``Clock.now_us``."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """See ``Clock.sleep``."""
        await asyncio.sleep(seconds)


class RandomIds:
    """Ids, salts and seeds from the operating system's randomness.

    A request needs a dozen pieces of it: they are fetched many at a time, since each call of the system costs more than
    the bytes do. No piece is ever handed out twice: taking from a deque is atomic, and a process that was forked begins
    anew.
    """

    def __init__(self) -> None:
        self._digits: deque[str] = deque()
        self._salts: deque[bytes] = deque()
        os.register_at_fork(after_in_child=self._digits.clear)
        os.register_at_fork(after_in_child=self._salts.clear)

    def new(self, prefix: str) -> str:
        """See ``Ids.new``: 48 bits of milliseconds and 80 random ones, as in a UUID of version 7 (RFC 9562)."""
        while True:
            try:
                return f"{prefix}{time.time_ns() // 1_000_000:012x}{self._digits.popleft()}"
            except IndexError:
                fresh = os.urandom(RANDOM_DIGITS // 2 * PIECES).hex()
                self._digits.extend([fresh[at : at + RANDOM_DIGITS] for at in range(0, len(fresh), RANDOM_DIGITS)])

    def salt(self) -> bytes:
        """See ``Ids.salt``."""
        while True:
            try:
                return self._salts.popleft()
            except IndexError:
                fresh = os.urandom(SALT_BYTES * PIECES)
                self._salts.extend([fresh[at : at + SALT_BYTES] for at in range(0, len(fresh), SALT_BYTES)])

    def seed(self) -> int:
        """See ``Ids.seed``."""
        return int.from_bytes(self.salt()[:4], "big") >> 1
