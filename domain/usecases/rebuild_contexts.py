"""Rebuilding the shared contexts: a new epoch, filled with the fold of every open session, and then switched to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from manent.domain.projections import SessionSteps, SessionWalk, SharedContexts
from manent.domain.session import SessionState, SessionStatus
from manent.domain.session_fold import fold
from manent.domain.usecases.lineage import parent_of
from manent.domain.usecases.sessions import Sessions

STATES_MAX, MESSAGES_MAX = 256, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What a rebuild did: ``events`` of sessions were folded, and ``sessions`` that are open written."""

    epoch: str
    events: int
    sessions: int


class RebuildContexts:
    """Folds the whole log, one session after another, in memory that does not grow with it.

    What is recorded meanwhile is caught up with when its session is used, as with any context that is old.
    """

    def __init__(self, walk: SessionWalk, sessions: Sessions, shared: SharedContexts) -> None:
        self._walk = walk
        self._sessions = sessions
        self._shared = shared

    async def run(self, progress: Callable[[int], None]) -> Rebuilt:
        """Rebuild everything; ``progress`` is told how many events each page had.

        Raises:
            CacheUnavailable, StoreUnavailable, LogCorrupt: the epoch before stays the current one.
        """
        filling = _Filling(self._shared, await self._shared.begin_epoch())
        state = SessionState(session_id="", tenant="")
        events = 0
        try:
            async for page in self._walk.pages():
                done = 0
                for steps in page:
                    if steps.session != (state.tenant, state.session_id):
                        await filling.add(state)
                        tenant, session_id = steps.session
                        state = SessionState(session_id=session_id, tenant=tenant)
                    state = await self._after(state, steps)
                    done += len(steps.events)
                events += done
                progress(done)
            await filling.add(state)
        finally:
            await filling.end()
        await self._shared.switch(filling.epoch)
        return Rebuilt(epoch=filling.epoch, events=events, sessions=filling.sessions)

    async def _after(self, state: SessionState, steps: SessionSteps) -> SessionState:
        """``state`` after ``steps``; the past of a fork stands in other streams."""
        if state.version == 0 and parent_of(steps.events[0]) is not None:
            return await self._sessions.load_at(state.tenant, state.session_id, steps.last_version)
        return fold(state, steps.events, last_event_id=steps.last_event_id)


class _Filling:
    """States on their way to an epoch: some are written while the next are folded."""

    def __init__(self, shared: SharedContexts, epoch: str) -> None:
        self.epoch = epoch
        self.sessions = 0
        self._shared = shared
        self._states: list[SessionState] = []
        self._messages = 0
        self._writing: asyncio.Task[None] | None = None

    async def add(self, state: SessionState) -> None:
        """Write ``state`` with others later on; one that is closed is not worth a place."""
        if state.status is not SessionStatus.OPEN:
            return
        self._states.append(state)
        self._messages += len(state.messages)
        if len(self._states) >= STATES_MAX or self._messages >= MESSAGES_MAX:
            await self._write()

    async def end(self) -> None:
        """Write what waits, and return when all is written."""
        await self._write()
        await self._write()

    async def _write(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing
        if self._states:
            self._writing = asyncio.create_task(self._shared.fill(self.epoch, self._states))
            self.sessions += len(self._states)
            self._states, self._messages = [], 0
