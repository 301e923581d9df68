"""From a running completion to the writer of its stream: what gathered meanwhile comes as one, silence is told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

from manent.domain.generation import TextDelta
from manent.domain.usecases.running import RunningCompletion

CHUNK_CHARS_MAX = 16 * 1024
LOGPROBS_CHARS = 100
"""What a token's log probabilities count for, at least, beside its text."""


class DeltaFeed:
    """Follows a completion in a task of its own, so that a slow writer finds the deltas joined.

    It holds no more than what the completion itself keeps, which max_tokens bounds. Where it does not ``join``, deltas
    come as they are, as many as there are.
    """

    def __init__(self, running: RunningCompletion, *, joins: bool = True) -> None:
        self._running = running
        self._joins = joins
        self._pieces: deque[TextDelta] = deque()
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

    async def take(self, wait_s: float) -> list[TextDelta] | None:
        """What is ready, up to a bound, each choice's joined; empty after ``wait_s`` of silence, None at the end.

        Raises:
            DomainError: it failed or was cancelled; everything before that was taken.
        """
        if not self._pieces and self._task is not None and not self._task.done():
            try:
                async with asyncio.timeout(wait_s):
                    await self._ready.wait()
            except TimeoutError:
                return []
        self._ready.clear()
        if self._pieces:
            return await self._joined()
        if self._task is not None:
            await self._task
        return None

    async def _joined(self) -> list[TextDelta]:
        taken: dict[int, list[TextDelta]] = {}
        size_chars = 0
        while self._pieces and size_chars < CHUNK_CHARS_MAX:
            piece = self._pieces.popleft()
            taken.setdefault(piece.index if self._joins else len(taken), []).append(piece)
            size_chars += len(piece.text) + len(piece.reasoning) + LOGPROBS_CHARS * len(piece.logprobs)
        if self._pieces:
            await asyncio.sleep(0)  # a long backlog must not keep others from the loop
        return [_join(pieces) for pieces in taken.values()]

    async def _pump(self) -> None:
        try:
            async with aclosing(self._running.deltas()) as deltas:
                async for delta in deltas:
                    if delta.text or delta.logprobs or delta.reasoning or delta.tool_calls:
                        self._pieces.append(delta)
                        self._ready.set()
        finally:
            self._ready.set()


def _join(pieces: Sequence[TextDelta]) -> TextDelta:
    if len(pieces) == 1:
        return pieces[0]
    return TextDelta(
        index=pieces[0].index,
        text="".join(piece.text for piece in pieces),
        token_ids=tuple(token for piece in pieces for token in piece.token_ids),
        logprobs=tuple(entry for piece in pieces for entry in piece.logprobs),
        reasoning="".join(piece.reasoning for piece in pieces),
        tool_calls=tuple(call for piece in pieces for call in piece.tool_calls),
    )
