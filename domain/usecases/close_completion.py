"""The terminal event of a completion: exactly one, whatever happens around it."""

from __future__ import annotations

from manent.domain.errors import StoreUnavailable, VersionConflict
from manent.domain.events import CompletionFailed, CompletionOutcome, SessionEvent, completion_stream
from manent.domain.ports import Clock, EventContext, EventStore, OpenCompletion
from manent.domain.session import decide_close
from manent.domain.usecases.sessions import Sessions

RETRY_DELAYS_S = (0.1, 0.3, 1.0, 2.0, 4.0)
CONFLICTS_MAX = 32


class CloseCompletion:
    """Appends the terminal event, against conflicts and a store that is away for some seconds."""

    def __init__(self, store: EventStore, sessions: Sessions, clock: Clock) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock

    async def close(self, outcome: CompletionOutcome, *, context: EventContext) -> bool:
        """Record ``outcome``; False where another terminal event stands already.

        Raises:
            StoreUnavailable: the store stayed away. The completion is left open, and closed as interrupted by the
                session's next request or at the next start.
        """
        for delay_s in RETRY_DELAYS_S:
            try:
                return await self._close_once(outcome, context)
            except StoreUnavailable:
                await self._clock.sleep(delay_s)
        return await self._close_once(outcome, context)

    async def close_interrupted(self, found: OpenCompletion) -> bool:
        """Close a completion whose server ended before it did."""
        session_id = found.stream_id.removeprefix("session-") if found.stream_id.startswith("session-") else None
        outcome = CompletionFailed(
            completion_id=found.completion_id,
            session_id=session_id,
            model_id=None,
            code="interrupted",
            reason="the server ended before the completion did",
            text=None,
            token_ids=None,
            usage=None,
            failed_at_us=self._clock.now_us(),
        )
        context = EventContext(tenant=found.tenant, actor="manent", causation_id=found.completion_id)
        return await self.close(outcome, context=context)

    async def _close_once(self, outcome: CompletionOutcome, context: EventContext) -> bool:
        if outcome.session_id is None:
            return await self._close_alone(outcome, context)
        for _ in range(CONFLICTS_MAX):
            state = await self._sessions.load(context.tenant, outcome.session_id)
            events: list[SessionEvent] = decide_close(state, outcome, now_us=self._clock.now_us())
            if not events:
                return False
            try:
                await self._sessions.record(state, events, context=context)
            except VersionConflict:
                continue
            return True
        raise StoreUnavailable(f"session {outcome.session_id!r} changed {CONFLICTS_MAX} times while it was written to")

    async def _close_alone(self, outcome: CompletionOutcome, context: EventContext) -> bool:
        """Close a completion without a session: its stream holds the request, as version 1, and nothing else."""
        stream_id = completion_stream(outcome.completion_id)
        try:
            await self._store.append(stream_id, [outcome], expected_version=1, context=context)
        except VersionConflict:
            return False
        return True


class CloseInterrupted:
    """What start-up does: close whatever a crash left open."""

    def __init__(self, store: EventStore, closing: CloseCompletion) -> None:
        self._store = store
        self._closing = closing

    async def run(self) -> int:
        """Close all open completions; how many there were."""
        closed = 0
        while found := await self._store.open_completions(limit=100):
            closed_now = [await self._closing.close_interrupted(completion) for completion in found]
            closed += sum(closed_now)
            if not any(closed_now):
                break
        return closed
