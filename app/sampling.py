"""Figures that cost a question to somebody else: asked every few seconds, so that no scrape has to wait for them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

EVERY_S = 5.0
ANSWER_S = 2.0


class Sampler:
    """Keeps the last answer of each part. A part that does not answer is asked again only once it has."""

    def __init__(self, parts: Mapping[str, Callable[[], Awaitable[float]]], *, every_s: float = EVERY_S) -> None:
        self._parts = parts
        self._every_s = every_s
        self._asked: dict[str, asyncio.Task[float]] = {}
        self.latest: dict[str, float] = {}
        self.failed: Counter[str] = Counter()
        self.loop_lag_s = 0.0

    async def keep_sampling(self) -> None:
        """Ask, again and again, until it is cancelled."""
        try:
            while True:
                await self.sample()
                began_s = monotonic()
                await asyncio.sleep(self._every_s)
                self.loop_lag_s = max(0.0, monotonic() - began_s - self._every_s)
        finally:
            for task in self._asked.values():
                task.cancel()

    async def sample(self) -> None:
        """Ask every part once, all at the same time, and wait for at most ``ANSWER_S``."""
        for name, ask in self._parts.items():
            if name not in self._asked:
                self._asked[name] = asyncio.create_task(_answer(ask), name=f"sample {name}")
        await asyncio.wait(self._asked.values(), timeout=ANSWER_S)
        for name, task in list(self._asked.items()):
            if not task.done():
                self.failed[name] += 1
                continue
            del self._asked[name]
            if task.cancelled() or task.exception() is not None:
                self.failed[name] += 1
                self.latest.pop(name, None)
            else:
                self.latest[name] = task.result()


async def _answer(ask: Callable[[], Awaitable[float]]) -> float:
    return await ask()
