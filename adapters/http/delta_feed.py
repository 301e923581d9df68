"""From a running completion to the writer of its stream: what gathered meanwhile comes as one, silence is told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from manent.domain.generation import TextDelta
from manent.domain.usecases.running import RunningCompletion

CHUNK_CHARS_MAX = 16 * 1024
LOGPROBS_CHARS = 100
"""What a token's log probabilities count for, at least, beside its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Deltas ``start`` to below ``end`` of a completion, each choice's joined; those that say nothing are left out."""

    start: int
    end: int
    pieces: Sequence[TextDelta] = ()


class DeltaFeed:
    """Follows a completion in a task of its own, so that a slow writer finds the deltas joined.

    It holds no more than what the completion itself keeps, which max_tokens bounds.
    """

    def __init__(self, running: RunningCompletion, *, start: int = 0) -> None:
        self._running = running
        self._next = start
        self._deltas: deque[TextDelta] = deque()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._pump(self._next), name=f"feed {self._running.completion_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def take(self, wait_s: float) -> Taken | None:
        """What is ready, up to a bound; no pieces after ``wait_s`` of silence, None at the end.

        Raises:
            DomainError: it failed or was cancelled; everything before that was taken.
        """
        if not self._deltas and self._task is not None and not self._task.done():
            try:
                async with asyncio.timeout(wait_s):
                    await self._ready.wait()
            except TimeoutError:
                return Taken(start=self._next, end=self._next)
        self._ready.clear()
        if self._deltas:
            return await self._joined()
        if self._task is not None:
            await self._task
        return None

    async def _joined(self) -> Taken:
        deltas: list[TextDelta] = []
        size_chars = 0
        while self._deltas and size_chars < CHUNK_CHARS_MAX:
            delta = self._deltas.popleft()
            deltas.append(delta)
            size_chars += len(delta.text) + len(delta.reasoning) + LOGPROBS_CHARS * len(delta.logprobs)
        if self._deltas:
            await asyncio.sleep(0)  # a long backlog must not keep others from the loop
        start, self._next = self._next, self._next + len(deltas)
        return taken(start, deltas)

    async def _pump(self, start: int) -> None:
        try:
            async with aclosing(self._running.deltas(start)) as deltas:
                async for delta in deltas:
                    self._deltas.append(delta)
                    if _says_something(delta):
                        self._ready.set()
        finally:
            self._ready.set()


def taken(start: int, deltas: Sequence[TextDelta]) -> Taken:
    """Deltas from number ``start`` on as a batch."""
    choices: dict[int, list[TextDelta]] = {}
    for delta in deltas:
        if _says_something(delta):
            choices.setdefault(delta.index, []).append(delta)
    return Taken(start=start, end=start + len(deltas), pieces=[_join(pieces) for pieces in choices.values()])


def _says_something(delta: TextDelta) -> bool:
    return bool(delta.text or delta.logprobs or delta.reasoning or delta.tool_calls)


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
