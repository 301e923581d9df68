"""Hooks for the scripted engine."""

from __future__ import annotations

import asyncio


class Held:
    """Holds a stream before one of its deltas until it is released."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, number: int) -> None:
        """Wait, at the given delta."""
        if number == self.number:
            self.reached.set()
            await self.released.wait()
