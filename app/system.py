"""The real clock and real randomness, as the domain's ports want them."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque

RANDOM_BYTES = 10
SALT_BYTES = 32
PIECE_BYTES = RANDOM_BYTES + SALT_BYTES
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
    the bytes do. No piece is ever handed out twice, to whatever thread, nor by a process that was forked.
    """

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        os.register_at_fork(after_in_child=self._pieces.clear)

    def new(self, prefix: str) -> str:
        """See ``Ids.new``: 48 bits of milliseconds and 80 random ones, as in a UUID of version 7 (RFC 9562)."""
        return f"{prefix}{time.time_ns() // 1_000_000:012x}{self._piece()[:RANDOM_BYTES].hex()}"

    def salt(self) -> bytes:
        """See ``Ids.salt``."""
        return self._piece()[:SALT_BYTES]

    def event(self) -> tuple[str, bytes]:
        """See ``Ids.event``."""
        piece = self._piece()
        return f"evt_{time.time_ns() // 1_000_000:012x}{piece[:RANDOM_BYTES].hex()}", piece[RANDOM_BYTES:]

    def seed(self) -> int:
        """See ``Ids.seed``."""
        return int.from_bytes(self._piece()[:4], "big") >> 1

    def _piece(self) -> bytes:
        """Random bytes for an id and a salt. Taking from a deque is atomic, so that no two threads get the same."""
        while True:
            try:
                return self._pieces.popleft()
            except IndexError:
                fresh = os.urandom(PIECE_BYTES * PIECES)
                self._pieces.extend(fresh[at : at + PIECE_BYTES] for at in range(0, len(fresh), PIECE_BYTES))
