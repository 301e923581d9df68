"""Starting, reading, changing and deleting sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manent.domain.access import Principal, note_reading
from manent.domain.errors import SessionAlreadyExists, VersionConflict
from manent.domain.events import SessionEvent, session_stream
from manent.domain.messages import Message
from manent.domain.ports import Clock, EventStore, Ids, InferenceEngine
from manent.domain.records import IdempotencyKey
from manent.domain.session import SessionState, check_usable, decide_delete, decide_start
from manent.domain.session_limits import check_session_id
from manent.domain.session_upkeep import ExpectedVersion, SessionChange, check_readable, decide_change
from manent.domain.usecases.live_completions import LiveCompletions
from manent.domain.usecases.sessions import Sessions, context_of
from manent.domain.usecases.turns import Turns

CANCEL_WAIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSession:
    """A wish to start a session; without an id it is given one."""

    principal: Principal
    session_id: str | None = None
    metadata: dict[str, str] | None = None
    ttl_s: int | None = None
    messages: tuple[Message, ...] = ()
    request_id: str | None = None
    idempotency: IdempotencyKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSession:
    """A wish to change a session, which may depend on the version that it is at."""

    principal: Principal
    session_id: str
    change: SessionChange
    expected: ExpectedVersion | None = None
    request_id: str | None = None
    idempotency: IdempotencyKey | None = None


class ManageSessions:
    """What owners do with their sessions beside conversing in them."""

    def __init__(
        self,
        *,
        store: EventStore,
        sessions: Sessions,
        engine: InferenceEngine,
        turns: Turns,
        live: LiveCompletions,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._engine = engine
        self._turns = turns
        self._live = live
        self._clock = clock
        self._ids = ids

    async def start(self, command: StartSession) -> SessionState:
        """Start a session.

        Raises:
            SessionAlreadyExists: the id is taken.
            InvalidValue: id, metadata or ttl_s are beyond their limits.
        """
        if command.idempotency is not None and (kept := await self._store.find_answer(command.idempotency)):
            return await self._sessions.recorded_at(kept)
        session_id = command.session_id or self._ids.new("sess_")
        check_session_id(session_id)
        state = await self._sessions.load(command.principal.tenant, session_id)
        events = decide_start(
            state,
            metadata=command.metadata or {},
            ttl_s=command.ttl_s,
            messages=command.messages,
            by=command.principal,
            now_us=self._clock.now_us(),
        )
        context = context_of(command.principal, request_id=command.request_id)
        try:
            after, appended = await self._sessions.record(
                state, events, context=context, idempotency=command.idempotency
            )
        except VersionConflict:
            raise SessionAlreadyExists(f"session {session_id!r} exists already") from None
        return await self._sessions.recorded_at(appended) if appended.repeated else after

    async def get(self, principal: Principal, session_id: str) -> SessionState:
        """The session as it stands; to look at it does not count as use.

        Raises:
            SessionNotFound: it was never started, was deleted, or ``principal`` may not read it.
            SessionGone: it expired.
        """
        state = await self._sessions.load(principal.tenant, session_id)
        check_readable(state, principal, now_us=self._clock.now_us())
        await note_reading(principal, resource=session_stream(session_id), owner=state.owner)
        return state

    async def change(self, command: ChangeSession) -> SessionState:
        """Change metadata and time to live; the session after it.

        Raises:
            SessionNotFound, SessionClosed, SessionGone: nothing can be changed in it.
            InvalidValue: metadata or ttl_s are beyond their limits.
            PreconditionFailed: it is not at the expected version.
        """
        if command.idempotency is not None and (kept := await self._store.find_answer(command.idempotency)):
            return await self._sessions.recorded_at(kept)
        by = command.principal

        async def decide(state: SessionState) -> Sequence[SessionEvent]:
            return decide_change(state, command.change, expected=command.expected, by=by, now_us=self._clock.now_us())

        after, appended = await self._sessions.decide_and_record(
            by.tenant,
            command.session_id,
            decide,
            context=context_of(by, request_id=command.request_id),
            idempotency=command.idempotency,
        )
        return await self._sessions.recorded_at(appended) if appended is not None and appended.repeated else after

    async def delete(
        self,
        principal: Principal,
        session_id: str,
        *,
        request_id: str | None,
        expected: ExpectedVersion | None = None,
    ) -> None:
        """Close the session for good; a completion that runs in it is cancelled first, and no engine keeps any of it.

        Raises:
            SessionNotFound, SessionClosed, SessionGone, SessionBusy, PreconditionFailed: nothing was deleted.
        """
        state = await self._sessions.load(principal.tenant, session_id)
        check_usable(state, principal, now_us=self._clock.now_us())
        if expected is not None:
            expected.check(state)
            # One event more is the end of the completion that is cancelled here; an answer would be two.
            expected = ExpectedVersion.of(state.version, *([state.version + 1] if state.open_completion_id else []))
        await self._live.cancel_session(principal.tenant, session_id, reason="session_deleted", wait_s=CANCEL_WAIT_S)

        async def decide(state: SessionState) -> Sequence[SessionEvent]:
            events = decide_delete(state, by=principal, now_us=self._clock.now_us())
            if expected is not None:
                expected.check(state)
            return events

        context = context_of(principal, request_id=request_id)
        async with self._turns.take(principal.tenant, session_id):
            await self._sessions.decide_and_record(principal.tenant, session_id, decide, context=context)
            await self._engine.forget(principal.tenant, session_id)
