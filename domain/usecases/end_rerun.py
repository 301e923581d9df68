"""The end of a rerun: one event, whoever records it."""

from __future__ import annotations

from collections.abc import Sequence

from manent.domain.events import SessionEvent, session_of
from manent.domain.ports import Clock, EventStore
from manent.domain.records import EventContext, OpenCompletion
from manent.domain.replay_events import RerunEnded
from manent.domain.session import SessionState
from manent.domain.usecases.despite_outages import despite_outages
from manent.domain.usecases.rerun_progress import read_progress
from manent.domain.usecases.sessions import Sessions

RERUN_PREFIX = "rerun_"
CONFLICTS_MAX = 32


def is_rerun(found: OpenCompletion) -> bool:
    """Whether what has no end is a rerun and no completion."""
    return found.completion_id.startswith(RERUN_PREFIX)


class EndRerun:
    """Appends RerunEnded unless it is there.

    The store keeps a rerun that has no end among the open completions, so that those that a crash left are found by
    the same look, and other servers' are left alone by the same rule.
    """

    def __init__(self, store: EventStore, sessions: Sessions, clock: Clock) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock

    async def run(self, ended: RerunEnded, *, context: EventContext) -> bool:
        """Record the end; False where it was recorded before.

        Raises:
            StoreUnavailable: the store stayed away; whoever looks for what is left open closes it as interrupted.
        """
        return await despite_outages(lambda: self._once(ended, context), self._clock)

    async def interrupted(self, found: OpenCompletion) -> bool:
        """Close a rerun that nobody runs any more."""
        ended = RerunEnded(
            session_id=session_of(found.stream_id),
            rerun_id=found.completion_id,
            status="interrupted",
            turns_done=(await read_progress(self._store, found.tenant, found.stream_id)).turns_done,
            code="interrupted",
            reason="the server ended before the rerun did",
            ended_at_us=self._clock.now_us(),
        )
        context = EventContext(tenant=found.tenant, actor="manent", correlation_id=found.completion_id)
        return await self.run(ended, context=context)

    async def _once(self, ended: RerunEnded, context: EventContext) -> bool:
        async def decide(_: SessionState) -> Sequence[SessionEvent]:
            return [ended] if await self._store.orphaned_completions(completion_id=ended.rerun_id) else []

        _, appended = await self._sessions.decide_and_record(
            context.tenant, ended.session_id, decide, context=context, conflicts_max=CONFLICTS_MAX
        )
        return appended is not None
