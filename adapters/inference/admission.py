"""The queue in front of a model: bounded in length and in time, interactive requests before batches, background last.

A place may be taken *alone*: it comes once everybody else has left, and nobody enters until it is given back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from types import TracebackType

from manent.domain.admission import Priority, QueuePlace
from manent.domain.errors import CompletionCancelledError, EngineBusy
from manent.domain.waiting import Gone, Waited, done_or_gone

INTERACTIVE_IN_A_ROW = 4
"""After so many interactive requests in a row that went before a waiting batch, the batch goes: nothing starves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How many requests a model works on at once, how many it has in all, and how long one waits, in seconds.

    Batches take at most three fourths of ``running_max``, so that there is soon a place for who is interactive. What is
    in the background takes at most half of it, and neither counts where others are refused for being too many, nor is
    refused for it: whoever sends it bounds how much there is.
    """

    running_max: int = 32
    in_flight_max: int = 64
    wait_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Turn:
    """Somebody in the queue; ``came`` is done with the place."""

    came: asyncio.Future[None]
    alone: bool


class Admission:
    """Hands out the places of one model. Belongs to one event loop."""

    def __init__(self, model_id: str, limits: AdmissionLimits) -> None:
        self._model_id = model_id
        self._limits = limits
        self._running_max = min(limits.running_max, limits.in_flight_max)
        self._running: dict[Priority, int] = dict.fromkeys(Priority, 0)
        self.running = 0
        """How many have a place."""
        self._waiting: dict[Priority, deque[_Turn]] = {priority: deque() for priority in Priority}
        self._in_a_row = 0
        self._taken_alone = False

    @property
    def in_flight(self) -> int:
        """How many have a place or wait for one."""
        return self.running + self.waiting

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return sum(map(len, self._waiting.values()))

    @property
    def _in_background(self) -> int:
        return self._running[Priority.BACKGROUND] + len(self._waiting[Priority.BACKGROUND])

    def place(
        self,
        priority: Priority = Priority.INTERACTIVE,
        *,
        alone: bool = False,
        gone: Gone | None = None,
    ) -> HeldPlace:
        """A place, or ``alone`` all of them, for as long as a block lasts.

        ``gone`` returns when nobody wants it any more.
        """
        return HeldPlace(self, priority, alone=alone, gone=gone)

    async def take(self, priority: Priority, gone: Gone | None, *, alone: bool) -> QueuePlace:
        """Wait for a place, which is to be given back.

        Raises:
            EngineBusy: too many have one or wait for one already, or none became free in time.
            CompletionCancelledError: it was not wanted any more while it waited.
        """
        waiting = self.waiting
        before = self.running + waiting - self._in_background
        if before >= self._limits.in_flight_max and priority is not Priority.BACKGROUND:
            raise EngineBusy(f"{before} requests are waiting for model {self._model_id} already")
        if priority is Priority.INTERACTIVE and self._has_room(alone=alone) and not waiting:
            self._take(priority, alone=alone, passed_over=False)
            return QueuePlace(model_id=self._model_id)
        loop = asyncio.get_running_loop()
        began_s, position = loop.time(), self._ahead_of(priority)
        turn = _Turn(loop.create_future(), alone)
        self._waiting[priority].append(turn)
        self._hand_over()
        if not turn.came.done():
            await self._until(turn, priority, gone)
        else:
            position = 0
        return QueuePlace(model_id=self._model_id, position=position, waited_s=loop.time() - began_s)

    def give_back(self, priority: Priority, *, alone: bool) -> None:
        """Give a place back."""
        self._running[priority] -= 1
        self.running -= 1
        if alone:
            self._taken_alone = False
        if self.waiting:
            self._hand_over()

    async def _until(self, turn: _Turn, priority: Priority, gone: Gone | None) -> None:
        waited = None
        try:
            waited = await done_or_gone(turn.came, gone, timeout_s=self._limits.wait_max_s)
        finally:
            if waited is not Waited.DONE:
                self._give_up(turn, priority)
        if waited is Waited.GONE:
            raise CompletionCancelledError(f"nobody waits any more for a place at model {self._model_id}")
        if waited is Waited.TIMED_OUT:
            raise EngineBusy(f"no place at model {self._model_id} became free in {self._limits.wait_max_s:g} s")

    def _give_up(self, turn: _Turn, priority: Priority) -> None:
        """Leave the queue, or hand on the place that came at the last moment."""
        if turn.came.done():
            self.give_back(priority, alone=turn.alone)
        else:
            self._waiting[priority].remove(turn)
            self._hand_over()

    def _ahead_of(self, priority: Priority) -> int:
        ahead = {
            Priority.INTERACTIVE: (Priority.INTERACTIVE,),
            Priority.BATCH: (Priority.INTERACTIVE, Priority.BATCH),
            Priority.BACKGROUND: tuple(Priority),
        }
        return sum(len(self._waiting[one]) for one in ahead[priority])

    def _hand_over(self) -> None:
        """Give the free places to those who come next. Nobody overtakes who is next and waits to be alone."""
        while (priority := self._next()) is not None and self._has_room(alone=self._waiting[priority][0].alone):
            turn = self._waiting[priority].popleft()
            passed_over = priority is Priority.INTERACTIVE and bool(self._waiting[Priority.BATCH])
            self._take(priority, alone=turn.alone, passed_over=passed_over)
            turn.came.set_result(None)

    def _take(self, priority: Priority, *, alone: bool, passed_over: bool) -> None:
        self._in_a_row = self._in_a_row + 1 if passed_over else 0
        self._running[priority] += 1
        self.running += 1
        self._taken_alone = alone

    def _has_room(self, *, alone: bool) -> bool:
        if self._taken_alone:
            return False
        return self.running == 0 if alone else self.running < self._running_max

    def _next(self) -> Priority | None:
        room_for_batch = self._running[Priority.BATCH] < max(1, self._running_max * 3 // 4)
        batch = bool(self._waiting[Priority.BATCH]) and room_for_batch
        interactive = bool(self._waiting[Priority.INTERACTIVE])
        if interactive and not (batch and self._in_a_row >= INTERACTIVE_IN_A_ROW):
            return Priority.INTERACTIVE
        if batch:
            return Priority.BATCH
        return Priority.BACKGROUND if self._room_for_background() else None

    def _room_for_background(self) -> bool:
        """Whether somebody in the background is next: nobody else waits, and they have less than half of the places."""
        if not self._waiting[Priority.BACKGROUND] or self._waiting[Priority.BATCH]:
            return False
        return self._running[Priority.BACKGROUND] < max(1, self._running_max // 2)


class HeldPlace:
    """See ``Admission.place``."""

    def __init__(self, admission: Admission, priority: Priority, *, alone: bool, gone: Gone | None) -> None:
        self._admission = admission
        self._priority = priority
        self._alone = alone
        self._gone = gone

    async def __aenter__(self) -> QueuePlace:
        return await self._admission.take(self._priority, self._gone, alone=self._alone)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.give_back(self._priority, alone=self._alone)
