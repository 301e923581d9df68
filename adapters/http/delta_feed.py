"""From a running completion to the writer of its stream: what gathered meanwhile comes as one, silence is told."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from types import TracebackType
from typing import Self

from manent.domain.usecases.running import RunningCompletion

CHUNK_CHARS_MAX = 16 * 1024


class DeltaFeed:
    """Follows a completion in a task of its own, so that a slow writer finds the deltas joined.

    It holds no more than what the completion itself keeps, which max_tokens bounds.
    """

    def __init__(self, running: RunningCompletion) -> None:
        self._running = running
        self._pieces: deque[str] = deque()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._pump(), name=f"feed {self._running.completion_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def take(self, wait_s: float) -> str | None:
        """The text that is ready, up to a bound; empty after ``wait_s`` of silence, None once the completion has ended.

        Raises:
            DomainError: it failed or was cancelled; everything before that was taken.
        """
        if not self._pieces and self._task is not None and not self._task.done():
            try:
                async with asyncio.timeout(wait_s):
                    await self._ready.wait()
            except TimeoutError:
                return ""
        self._ready.clear()
        if self._pieces:
            return await self._joined()
        if self._task is not None:
            await self._task
        return None

    async def _joined(self) -> str:
        joined: list[str] = []
        size_chars = 0
        while self._pieces and size_chars < CHUNK_CHARS_MAX:
            joined.append(self._pieces.popleft())
            size_chars += len(joined[-1])
        if self._pieces:
            await asyncio.sleep(0)  # a long backlog must not keep others from the loop
        return "".join(joined)

    async def _pump(self) -> None:
        try:
            async with aclosing(self._running.deltas()) as deltas:
                async for delta in deltas:
                    if delta.text:
                        self._pieces.append(delta.text)
                        self._ready.set()
        finally:
            self._ready.set()
