"""Waiting for work, but no longer than somebody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

Gone = Callable[[], Awaitable[None]]
"""Returns when nobody wants the work any more."""


class Waited(Enum):
    """How a wait ended; DONE wins where two came at once."""

    DONE = auto()
    GONE = auto()
    TIMED_OUT = auto()


async def done_or_gone(work: asyncio.Future[Any], gone: Gone | None, *, timeout_s: float | None = None) -> Waited:
    """Wait until ``work`` is done, ``gone`` returns or the time is over.

    ``work`` is the caller's and left as it is; ``gone`` does not run any more on return, whatever happened.
    """
    left = None if gone is None else asyncio.ensure_future(gone())
    try:
        await asyncio.wait({work} if left is None else {work, left}, timeout=timeout_s, return_when="FIRST_COMPLETED")
        if work.done():
            return Waited.DONE
        if left is None or not left.done():
            return Waited.TIMED_OUT
        left.result()
        return Waited.GONE
    finally:
        if left is not None:
            await end(left)


async def end_with_gone(work: asyncio.Future[Any], gone: Gone | None, *, timeout_s: float | None = None) -> Waited:
    """As ``done_or_gone``, but ``work`` does not run any more on return either, nor where the caller is cancelled.

    What was not DONE is cancelled; if ``work`` took something that is to be given back, it has where it is done and not
    cancelled.
    """
    try:
        return await done_or_gone(work, gone, timeout_s=timeout_s)
    finally:
        await end(work)


async def set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait until ``event`` is set, at most ``seconds``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def end(work: asyncio.Future[Any]) -> None:
    """Cancel ``work`` unless it is done, and wait until it is; what it fails in then is nobody's to know."""
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
        if not work.cancelled():
            work.exception()


class Changes:
    """What tells those who wait that something changed; what it is, they look at themselves, before they wait.

    It costs next to nothing while nobody waits, where an ``asyncio.Event`` that is set and cleared costs as much.
    """

    __slots__ = ("_awaited",)

    def __init__(self) -> None:
        self._awaited: list[asyncio.Future[None]] = []

    def tell(self) -> None:
        """There is one."""
        if self._awaited:
            awaited, self._awaited = self._awaited, []
            for future in awaited:
                if not future.done():
                    future.set_result(None)

    async def next(self) -> None:
        """Wait for the next one. No other task runs between a look and this, so that none is missed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append(future)
        try:
            await future
        except asyncio.CancelledError:
            with suppress(ValueError):  # it was told at that very moment
                self._awaited.remove(future)
            raise


class StopSignal:
    """A wish to stop, which is uttered once: what runs under it (``calling_off``) is cancelled then."""

    __slots__ = ("_blocks", "_changes", "uttered")

    def __init__(self) -> None:
        self.uttered = False
        self._changes = Changes()
        self._blocks: set[CalledOff] = set()

    def set(self) -> None:
        """Utter it."""
        self.uttered = True
        self._changes.tell()
        for block in tuple(self._blocks):
            block.cancel()

    async def wait(self) -> None:
        """Return once it was uttered."""
        while not self.uttered:
            await self._changes.next()

    def calling_off(self) -> CalledOff:
        """A block that is cancelled once it is uttered, and left then without an error."""
        return CalledOff(self, self._blocks)


class CalledOff:
    """See ``StopSignal.calling_off``. Like ``asyncio.timeout`` it needs no task of its own."""

    __slots__ = ("_blocks", "_cancelled", "_cancelling", "_signal", "_task")

    def __init__(self, signal: StopSignal, blocks: set[CalledOff]) -> None:
        self._signal = signal
        self._blocks = blocks
        self._cancelled = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be called off")
        self._task = task
        self._cancelling = task.cancelling()
        self._blocks.add(self)
        if self._signal.uttered:
            self.cancel()
        return self

    def cancel(self) -> None:
        """Cancel the task that is in the block, once."""
        if not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._blocks.discard(self)
        if not self._cancelled or self._task.uncancel() > self._cancelling:
            return False
        return kind is not None and issubclass(kind, asyncio.CancelledError)
