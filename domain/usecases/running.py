"""A completion while it runs: what its readers see of it.

A running completion belongs to the log and not to a socket: it has its own task, keeps what it produced (bounded by
its max_tokens), and any number of readers may follow it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TypeVar

from manent.domain.admission import QueuePlace
from manent.domain.errors import CompletionCancelledError, DeadlineExceeded, DomainError
from manent.domain.events import CompletionGenerated, CompletionOutcome, CompletionRequested
from manent.domain.generation import TextDelta
from manent.domain.made_often import made_often
from manent.domain.output import PartialOutput
from manent.domain.records import IdempotencyKey
from manent.domain.telemetry import NO_TELEMETRY, Stage, Timeline
from manent.domain.usecases.count_requests import Reservation
from manent.domain.waiting import CalledOff, Changes, StopSignal

_T = TypeVar("_T")


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What the log recorded when the completion was accepted, and the version of its stream after it.

    ``prompt_text`` is what is continued as it stands, also where that is not recorded.
    """

    requested: CompletionRequested
    stream_version: int
    prompt_text: str = ""


class RunningCompletion:
    """One completion, from its command to its terminal event.

    ``outcome`` is what it ended in by itself; a completion that is told again from the record has none.
    ``is_buffered`` says whether its deltas, and that they ended, are told to a buffer for readers elsewhere;
    ``comes_back`` whether a reader may come back for it after its end: what nobody can ask for is not kept.
    """

    def __init__(
        self,
        *,
        completion_id: str,
        tenant: str,
        subject: str = "",
        session_id: str | None,
        idempotency: IdempotencyKey | None = None,
        now_s: Callable[[], float] = NO_TELEMETRY.now_s,
        timeout_s: float | None = None,
        comes_back: bool = False,
    ) -> None:
        self.completion_id = completion_id
        self.tenant = tenant
        self.subject = subject
        self.session_id = session_id
        self.idempotency = idempotency
        self.timeout_s = timeout_s
        self.comes_back = comes_back
        self.is_buffered = False
        self.place = QueuePlace()
        self.timeline = Timeline(now_s)
        self.outcome: CompletionOutcome | None = None
        self.reservation = Reservation(tokens=0)
        self._readers = 1
        self._deltas: list[TextDelta] = []
        self._output = PartialOutput()
        self._more = Changes()  # for who follows each delta
        self._further = Changes()  # for who waits until it is accepted, or ended
        self._stop = StopSignal()
        self._timers: list[asyncio.TimerHandle] = []
        self._stop_reason: str | None = None
        self._deadline_error: DeadlineExceeded | None = None
        self._accepted: Accepted | None = None
        self._generated: CompletionGenerated | None = None
        self._error: DomainError | None = None

    # What readers use.

    async def accepted(self) -> Accepted:
        """Wait until the request is recorded.

        Raises:
            DomainError: it was refused, and nothing was recorded.
        """
        while self._accepted is None:
            self._raise_error()
            await self._further.next()
        return self._accepted

    async def deltas(self, start: int = 0) -> AsyncGenerator[TextDelta, None]:
        """Follow the output from delta number ``start`` on; ends once the terminal event is recorded.

        Raises:
            DomainError: the completion failed or was cancelled; the log has what it produced until then.
        """
        index = start
        while True:
            while index < len(self._deltas):
                yield self._deltas[index]
                index += 1
            if self._generated is not None:
                return
            self._raise_error()
            await self._more.next()

    async def generated(self) -> CompletionGenerated:
        """Wait until the completion's success is recorded.

        Raises:
            DomainError: it failed or was cancelled.
        """
        while self._generated is None:
            self._raise_error()
            await self._further.next()
        return self._generated

    @property
    def produced(self) -> Sequence[TextDelta]:
        """All deltas so far."""
        return self._deltas

    @property
    def text(self) -> str:
        """All text of the first choice so far."""
        return self._output.choices[0].text

    @property
    def output(self) -> PartialOutput:
        """All that was produced so far, by choice; it grows."""
        return self._output

    @property
    def error(self) -> DomainError | None:
        """What it ended in, where that is no answer."""
        return self._error

    @property
    def began(self) -> bool:
        """Whether there was any output."""
        return bool(self._deltas)

    @property
    def request(self) -> CompletionRequested | None:
        """What was recorded of it, once it was accepted."""
        return None if self._accepted is None else self._accepted.requested

    @property
    def ended(self) -> bool:
        """Whether its readers have been told how it ended."""
        return self._generated is not None or self._error is not None

    async def reaches(self, number: int) -> bool:
        """Wait until so many deltas are there; False where it ended with fewer."""
        while len(self._deltas) < number and not self.ended:
            await self._more.next()
        return len(self._deltas) >= number

    @property
    def failed(self) -> bool:
        """Whether it ended without an answer, or is about to."""
        return self._error is not None or self._stop_reason is not None

    def join(self) -> None:
        """One more reader follows."""
        self._readers += 1

    def leave(self, reason: str) -> None:
        """A reader is gone; with the last one goes the wish for an answer."""
        self._readers -= 1
        if self._readers <= 0:
            self.cancel(reason)

    def cancel(self, reason: str) -> None:
        """Ask it to stop within one token; the first reason given is the one that is recorded."""
        if self._stop_reason is None and not self.ended:
            self._stop_reason = reason
            self._stop.set()

    # What the use case uses.

    def limit(self, seconds: float | None) -> None:
        """Have it stopped ``seconds`` from now; what it ends in then is a failure."""
        if seconds is not None:
            self._timers.append(asyncio.get_running_loop().call_later(seconds, self._expire, seconds))

    def unlimited(self) -> None:
        """It takes no more time."""
        while self._timers:
            self._timers.pop().cancel()

    @property
    def deadline_error(self) -> DeadlineExceeded | None:
        """What it ends in, where its time was over before anything else stopped it."""
        return self._deadline_error

    async def unless_stopped(self, work: Coroutine[None, None, _T]) -> _T:
        """The result of ``work``, which is cancelled as soon as somebody asks to stop.

        Raises:
            CompletionCancelledError: somebody did.
        """
        if self._stop_reason is not None:
            work.close()
        else:
            with self._stop.calling_off():
                return await work
        raise CompletionCancelledError(f"cancelled before it was accepted ({self._stop_reason})")

    def calling_off(self) -> CalledOff:
        """A block that is cut, without an error, as soon as somebody asks to stop; not for one that was asked to."""
        return self._stop.calling_off()

    @property
    def stop_reason(self) -> str | None:
        """Why somebody asked it to stop, if somebody did."""
        return self._stop_reason

    async def stop_requested(self) -> None:
        """Return when somebody asks it to stop."""
        await self._stop.wait()

    def accept(self, accepted: Accepted) -> None:
        """Tell the readers that the request is recorded."""
        self._accepted = accepted
        self._output = PartialOutput(accepted.requested.parameters.n)
        self._further.tell()

    def produce(self, delta: TextDelta) -> None:
        """Hand a delta to the readers."""
        if not self._deltas:
            self.timeline.lap(Stage.PREFILL)
        self._deltas.append(delta)
        self._output.choices[delta.index].add(delta)
        self._more.tell()

    def finish(self, generated: CompletionGenerated) -> None:
        """Tell the readers that success is recorded."""
        self._generated = generated
        self._tell_end()

    def fail(self, error: DomainError) -> None:
        """Tell the readers that it ended, or was refused, with ``error``."""
        self._error = error
        self._tell_end()

    def _expire(self, after_s: float) -> None:
        if self._stop_reason is None:
            self._deadline_error = DeadlineExceeded(f"the completion did not end within {after_s:g} s")
            self.cancel(self._deadline_error.code)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _tell_end(self) -> None:
        self._further.tell()
        self._more.tell()
