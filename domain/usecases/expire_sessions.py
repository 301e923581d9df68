"""The sweeper: records that sessions expired, as they are due. What they answer does not wait for it."""

from __future__ import annotations

import asyncio
import logging

from manent.domain.errors import DomainError, StoreUnavailable, VersionConflict
from manent.domain.ports import Clock
from manent.domain.records import EventContext
from manent.domain.session import SessionState, SessionStatus
from manent.domain.session_list import DueSession, SessionDirectory
from manent.domain.session_upkeep import decide_expire
from manent.domain.usecases.sessions import Sessions

PAGE = 100
AT_ONCE = 3

_log = logging.getLogger("manent.sessions")


class ExpireSessions:
    """Appends SessionExpired. Any number of servers may do so at once: who comes second meets a conflict and leaves."""

    def __init__(self, *, directory: SessionDirectory, sessions: Sessions, clock: Clock, every_s: float) -> None:
        self._directory = directory
        self._sessions = sessions
        self._clock = clock
        self._every_s = every_s
        self._places = asyncio.Semaphore(AT_ONCE)

    async def keep_sweeping(self) -> None:
        """Sweep again and again; runs as long as the server does."""
        while True:
            await self._clock.sleep(self._every_s)
            expired = await self.run()
            if expired:
                _log.info("%d sessions expired", expired)

    async def run(self) -> int:
        """Look once at every session that may be due, a page at a time; how many were expired."""
        expired = 0
        after: DueSession | None = None
        while True:
            now_us = self._clock.now_us()
            page = await self._directory.due(now_us, after=after, limit=PAGE)
            looked = await asyncio.gather(*(self._judge(due, now_us) for due in page), return_exceptions=True)
            for failure in looked:
                if isinstance(failure, BaseException):
                    raise failure
            later = [(due, next_us) for due, next_us in zip(page, looked, strict=True) if isinstance(next_us, int)]
            await self._directory.postpone(later)
            expired += len(page) - len(later)
            if len(page) < PAGE:
                return expired
            after = page[-1]

    async def _judge(self, due: DueSession, now_us: int) -> int | None:
        """When to look at the session again; None where it expired now."""
        used_until_us = due.changed_at_us + due.ttl_s * 1_000_000
        if used_until_us > now_us:
            return used_until_us
        async with self._places:
            try:
                return await self._expire(due, now_us)
            except StoreUnavailable:
                raise
            except DomainError as error:
                _log.warning("session %s cannot expire: %s", due.session_id, error.message)
                return now_us + due.ttl_s * 1_000_000

    async def _expire(self, due: DueSession, now_us: int) -> int | None:
        state = await self._sessions.load(due.tenant, due.session_id)
        events = decide_expire(state, now_us=now_us)
        if not events:
            return _next_look(state, now_us)
        try:
            await self._sessions.record(state, events, context=EventContext(tenant=due.tenant, actor="manent"))
        except VersionConflict:
            return due.due_at_us  # somebody used it, or another server was faster: the next sweep sees which
        return None


def _next_look(state: SessionState, now_us: int) -> int:
    """While a completion is open nothing expires; its end, which is not before now, begins a new time to live."""
    if state.status is not SessionStatus.OPEN or state.ttl_s is None:
        return now_us  # its place is gone from the directory already
    return state.expires_at_us or now_us + state.ttl_s * 1_000_000
