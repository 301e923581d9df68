"""The real clock and real randomness, as the domain's ports want them."""

from __future__ import annotations

import asyncio
import os
import secrets
import time


class SystemClock:
    """The machine's time of day."""

    def now_us(self) -> int:
        """See ``Clock.now_us``."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """See ``Clock.sleep``."""
        await asyncio.sleep(seconds)


class RandomIds:
    """Ids, salts and seeds from the operating system's randomness."""

    def new(self, prefix: str) -> str:
        """See ``Ids.new``."""
        return prefix + secrets.token_hex(16)

    def salt(self) -> bytes:
        """See ``Ids.salt``."""
        return secrets.token_bytes(32)

    def event(self) -> tuple[str, bytes]:
        """See ``Ids.event``: 48 bits of milliseconds and 80 random ones, as in a UUID of version 7 (RFC 9562)."""
        random = os.urandom(42)
        return f"evt_{time.time_ns() // 1_000_000:012x}{random[32:].hex()}", random[:32]

    def seed(self) -> int:
        """See ``Ids.seed``."""
        return secrets.randbelow(2**31)
