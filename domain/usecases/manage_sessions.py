"""Starting, reading and deleting sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manent.domain.access import Principal, may_read
from manent.domain.errors import InvalidValue, SessionAlreadyExists, SessionNotFound, StoreUnavailable, VersionConflict
from manent.domain.messages import Message
from manent.domain.ports import Clock, EventStore, Ids, InferenceEngine
from manent.domain.records import Appended, EventFilter, IdempotencyKey
from manent.domain.session import (
    SessionState,
    SessionStatus,
    check_session_id,
    check_usable,
    decide_delete,
    decide_start,
)
from manent.domain.usecases.running import LiveCompletions
from manent.domain.usecases.sessions import Sessions, context_of
from manent.domain.usecases.turns import Turns

CANCEL_WAIT_S = 10.0
CONFLICTS_MAX = 8


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
class MessagePage:
    """A page of a session's messages; ``has_more`` tells whether others follow in the asked order."""

    messages: Sequence[Message]
    has_more: bool


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
            return await self._started_at(kept)
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
        return await self._started_at(appended) if appended.repeated else after

    async def _started_at(self, appended: Appended) -> SessionState:
        """The session that an earlier request with the same idempotency key started."""
        (entry,) = await self._store.query(EventFilter(), after_position=appended.position - 1, limit=1)
        return await self._sessions.load(entry.header.tenant, entry.header.stream_id.removeprefix("session-"))

    async def get(self, principal: Principal, session_id: str) -> SessionState:
        """The session as it stands.

        Raises:
            SessionNotFound: it was never started, was deleted, or ``principal`` may not read it.
        """
        state = await self._sessions.load(principal.tenant, session_id)
        readable = may_read(principal, tenant=state.tenant, owner=state.owner)
        if state.status is not SessionStatus.OPEN or not readable:
            raise SessionNotFound(f"no session {session_id!r} was found")
        return state

    async def messages(
        self, principal: Principal, session_id: str, *, after: str | None, limit: int, descending: bool
    ) -> MessagePage:
        """A page of the conversation as it stands, in its order or backwards, behind message ``after``.

        Raises:
            SessionNotFound: as ``get``.
            InvalidValue: ``after`` is no message of the conversation.
        """
        state = await self.get(principal, session_id)
        ordered = state.messages[::-1] if descending else state.messages
        start = 0
        if after is not None:
            place = next((i for i, message in enumerate(ordered) if message.message_id == after), None)
            if place is None:
                raise InvalidValue(f"after is {after!r}, which is no message of this session", param="after")
            start = place + 1
        return MessagePage(messages=ordered[start : start + limit], has_more=len(ordered) > start + limit)

    async def delete(self, principal: Principal, session_id: str, *, request_id: str | None) -> None:
        """Close the session for good; a completion that runs in it is cancelled first, and no engine keeps any of it.

        Raises:
            SessionNotFound, SessionClosed, SessionBusy: nothing was deleted.
        """
        check_usable(await self._sessions.load(principal.tenant, session_id), principal)
        await self._live.cancel_session(principal.tenant, session_id, reason="session_deleted", wait_s=CANCEL_WAIT_S)
        context = context_of(principal, request_id=request_id)
        async with self._turns.take(principal.tenant, session_id):
            for _ in range(CONFLICTS_MAX):
                state = await self._sessions.load(principal.tenant, session_id)
                events = decide_delete(state, by=principal, now_us=self._clock.now_us())
                try:
                    await self._sessions.record(state, events, context=context)
                except VersionConflict:
                    continue
                await self._engine.forget(principal.tenant, session_id)
                return
        raise StoreUnavailable(f"session {session_id!r} changed {CONFLICTS_MAX} times while it was deleted")
