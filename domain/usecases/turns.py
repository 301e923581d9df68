"""One completion per session at a time: who comes second waits, within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from manent.domain.errors import CompletionCancelledError, SessionBusy
from manent.domain.waiting import Gone, Waited, end_with_gone


@dataclass(slots=True)
class _Gate:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Turns:
    """Fair, bounded turns per session within this process; the open completion in the log guards across nodes."""

    def __init__(self, *, wait_s: float, waiting_max: int) -> None:
        self._wait_s = wait_s
        self._waiting_max = waiting_max
        self._gates: dict[tuple[str, str], _Gate] = {}

    @asynccontextmanager
    async def take(self, tenant: str, session_id: str, *, gone: Gone | None = None) -> AsyncGenerator[None, None]:
        """Hold the session's turn; ``gone`` returns when nobody wants it any more.

        Raises:
            SessionBusy: the turn did not come within the bound, or too many were waiting for it already.
            CompletionCancelledError: it was not wanted any more; its place in the queue is free.
        """
        key = tenant, session_id
        gate = self._gates.setdefault(key, _Gate())
        if gate.users > self._waiting_max:
            raise SessionBusy(f"{gate.users - 1} requests are waiting for session {session_id!r} already")
        gate.users += 1
        turn = asyncio.ensure_future(gate.lock.acquire())
        try:
            waited = await end_with_gone(turn, gone, timeout_s=self._wait_s)
            if waited is Waited.GONE:
                raise CompletionCancelledError(f"nobody waits any more for the turn of session {session_id!r}")
            if waited is Waited.TIMED_OUT:
                raise SessionBusy(
                    f"another completion of session {session_id!r} was still open after {self._wait_s:g} s"
                )
            yield
        finally:
            if turn.done() and not turn.cancelled():
                gate.lock.release()
            gate.users -= 1
            if gate.users == 0:
                self._gates.pop(key, None)
