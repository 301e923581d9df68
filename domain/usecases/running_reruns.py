"""The reruns of this process: so many at once, so many waiting, each with the task that owns it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from manent.domain.errors import ShuttingDown, TooManyReruns
from manent.domain.waiting import end_with_gone


@dataclass(slots=True, kw_only=True)
class RunningRerun:
    """How far a rerun is."""

    rerun_id: str
    tenant: str
    session_id: str
    started: bool = False
    turns_done: int = 0
    completion_id: str | None = None


class RunningReruns:
    """Bounded and owned: a rerun that has a place here ends with an event, or its server ended before it could."""

    def __init__(self, *, at_once_max: int, waiting_max: int) -> None:
        self._places = at_once_max + waiting_max
        self._at_once = asyncio.Semaphore(at_once_max)
        self._stop = asyncio.Event()
        self._taken = 0
        self._tasks: dict[str, tuple[RunningRerun, asyncio.Task[None]]] = {}

    def __contains__(self, rerun_id: object) -> bool:
        return rerun_id in self._tasks

    def of_session(self, tenant: str, session_id: str) -> RunningRerun | None:
        """The rerun that fills a session, if one does."""
        for running, _ in self._tasks.values():
            if (running.tenant, running.session_id) == (tenant, session_id):
                return running
        return None

    def take_place(self) -> Place:
        """A place, before anything is recorded; to be given back, or used for one rerun.

        Raises:
            TooManyReruns: all are taken.
            ShuttingDown: the server drains.
        """
        if self._stop.is_set():
            raise ShuttingDown("the server is shutting down and accepts no new reruns")
        if self._taken >= self._places:
            raise TooManyReruns(f"{self._taken} reruns are running or waiting already; try again when one has ended")
        self._taken += 1
        return Place(self)

    def give_back(self) -> None:
        """A place is free again."""
        self._taken -= 1

    def run(self, running: RunningRerun, life: Callable[[], Awaitable[None]], place: Place) -> None:
        """Own ``life`` until it ends, and give its place back then."""
        task = asyncio.create_task(self._live(life, place), name=f"rerun {running.rerun_id}")
        self._tasks[running.rerun_id] = running, task
        task.add_done_callback(lambda _: self._tasks.pop(running.rerun_id, None))

    async def turn_to_run(self) -> None:
        """Wait until fewer than the bound run.

        Raises:
            ShuttingDown: the server drains.
        """
        turn = asyncio.ensure_future(self._at_once.acquire())
        taken = False
        try:
            await end_with_gone(turn, self._stopping)
            taken = not self._stop.is_set()
        finally:
            if not taken and turn.done() and not turn.cancelled():
                self._at_once.release()
        if not taken:
            raise ShuttingDown("the server shut down before the rerun began")

    async def pause(self, waiting: Awaitable[None]) -> None:
        """Wait for ``waiting``, unless the server drains.

        Raises:
            ShuttingDown: it does.
        """
        await end_with_gone(asyncio.ensure_future(waiting), self._stopping)
        if self._stop.is_set():
            raise ShuttingDown("the server shut down before the rerun could go on")

    async def _stopping(self) -> None:
        await self._stop.wait()

    def end_turn(self) -> None:
        """Let the next one run."""
        self._at_once.release()

    def stop(self) -> None:
        """Accept nothing more, and let none begin that waits."""
        self._stop.set()

    async def drain(self, *, close_s: float) -> int:
        """Wait until each has recorded its end, once its completion was ended; how many have not."""
        self.stop()
        if self._tasks:
            await asyncio.wait([task for _, task in self._tasks.values()], timeout=close_s)
        return len(self._tasks)

    async def _live(self, life: Callable[[], Awaitable[None]], place: Place) -> None:
        with place:
            await life()


class Place:
    """One of the bounded places; leaving the context, or ``close``, gives it back once."""

    def __init__(self, reruns: RunningReruns) -> None:
        self._reruns: RunningReruns | None = reruns

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the place back."""
        reruns, self._reruns = self._reruns, None
        if reruns is not None:
            reruns.give_back()
