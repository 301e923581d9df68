"""One completion per session at a time: who comes second waits, within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from manent.domain.errors import CompletionCancelledError, SessionBusy


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
    async def take(
        self, tenant: str, session_id: str, *, gone: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncGenerator[None, None]:
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
        try:
            await self._acquire(gate, session_id, gone)
            try:
                yield
            finally:
                gate.lock.release()
        finally:
            gate.users -= 1
            if gate.users == 0:
                self._gates.pop(key, None)

    async def _acquire(self, gate: _Gate, session_id: str, gone: Callable[[], Awaitable[None]] | None) -> None:
        turn = asyncio.ensure_future(gate.lock.acquire())
        waits = {turn} if gone is None else {turn, asyncio.ensure_future(gone())}
        try:
            await asyncio.wait(waits, timeout=self._wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = [wait for wait in waits if not wait.done()]
            for wait in left:
                wait.cancel()
        if turn in left:
            if len(left) < len(waits):
                raise CompletionCancelledError(f"nobody waits any more for the turn of session {session_id!r}")
            raise SessionBusy(f"another completion of session {session_id!r} was still open after {self._wait_s:g} s")
