"""The messages of a session: adding one, reading one, reading pages of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manent.domain.access import Principal, note_reading
from manent.domain.errors import InvalidValue, MessageNotFound
from manent.domain.events import MessageAppended, SessionEvent, session_stream
from manent.domain.messages import Message
from manent.domain.ports import Clock, EventStore
from manent.domain.records import Appended, IdempotencyKey
from manent.domain.session import SessionState
from manent.domain.session_upkeep import ExpectedVersion, check_readable, decide_append
from manent.domain.usecases.sessions import Sessions, context_of
from manent.domain.usecases.turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class AddMessage:
    """A wish to add a message, which may depend on the version that the session is at."""

    principal: Principal
    session_id: str
    message: Message
    expected: ExpectedVersion | None = None
    request_id: str | None = None
    idempotency: IdempotencyKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAt:
    """A message, and the version of its session that it was read at or added by."""

    message: Message
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePage:
    """A page of a session's messages; ``has_more`` tells whether others follow in the asked order."""

    messages: Sequence[Message]
    has_more: bool
    version: int


class SessionMessages:
    """What is said in a session, without a model that answers."""

    def __init__(self, *, store: EventStore, sessions: Sessions, turns: Turns, clock: Clock) -> None:
        self._store = store
        self._sessions = sessions
        self._turns = turns
        self._clock = clock

    async def add(self, command: AddMessage) -> MessageAt:
        """Add a message to the end of the conversation, behind the answer that is being generated, if one is.

        Raises:
            SessionNotFound, SessionClosed, SessionGone: nothing can be added to it.
            SessionBusy: an answer is still being generated, and the bound on waiting for it was reached.
            PreconditionFailed: the session is not at the expected version.
        """
        by, session_id = command.principal, command.session_id
        if command.idempotency is not None and (kept := await self._store.find_answer(command.idempotency)):
            return await self._added(by.tenant, session_id, kept)

        async def decide(state: SessionState) -> Sequence[SessionEvent]:
            messages, now_us = [command.message], self._clock.now_us()
            return decide_append(state, messages, expected=command.expected, by=by, now_us=now_us)

        context = context_of(by, request_id=command.request_id)
        async with self._turns.take(by.tenant, session_id):
            after, appended = await self._sessions.decide_and_record(
                by.tenant, session_id, decide, context=context, idempotency=command.idempotency
            )
        if appended is not None and appended.repeated:
            return await self._added(by.tenant, session_id, appended)
        return MessageAt(message=command.message, version=after.version)

    async def get(self, principal: Principal, session_id: str, message_id: str) -> MessageAt:
        """A message of the conversation as it stands.

        Raises:
            SessionNotFound, SessionGone: as ``ManageSessions.get``.
            MessageNotFound: it was never said, or was revised away.
        """
        state = await self._readable(principal, session_id)
        index = state.messages.index_of(message_id)
        if index is None:
            raise MessageNotFound(f"session {session_id!r} has no message {message_id!r}")
        return MessageAt(message=state.messages[index], version=state.version)

    async def page(
        self, principal: Principal, session_id: str, *, after: str | None, limit: int, descending: bool
    ) -> MessagePage:
        """A page of the conversation as it stands, in its order or backwards, behind message ``after``.

        Raises:
            SessionNotFound, SessionGone: as ``ManageSessions.get``.
            InvalidValue: ``after`` is no message of the conversation.
        """
        state = await self._readable(principal, session_id)
        return page_of(state, after=after, limit=limit, descending=descending)

    async def _readable(self, principal: Principal, session_id: str) -> SessionState:
        state = await self._sessions.load(principal.tenant, session_id)
        check_readable(state, principal, now_us=self._clock.now_us())
        await note_reading(principal, resource=session_stream(session_id), owner=state.owner)
        return state

    async def _added(self, tenant: str, session_id: str, appended: Appended) -> MessageAt:
        """The message that an earlier request with the same idempotency key added."""
        (recorded,) = await self._store.read_stream(
            tenant, session_stream(session_id), after_version=appended.stream_version - 1, limit=1
        )
        if not isinstance(recorded.event, MessageAppended):
            raise MessageNotFound("the message that this idempotency key added was erased")
        return MessageAt(message=recorded.event.message, version=appended.stream_version)


def page_of(state: SessionState, *, after: str | None, limit: int, descending: bool) -> MessagePage:
    """A page of a conversation as it stood in ``state``; raises InvalidValue as ``SessionMessages.page``."""
    messages = state.messages
    start = len(messages) - 1 if descending else 0
    if after is not None:
        place = messages.index_of(after)
        if place is None:
            raise InvalidValue(f"after is {after!r}, which is no message of this session", param="after")
        start = place - 1 if descending else place + 1
    left = start + 1 if descending else len(messages) - start
    step = -1 if descending else 1
    count = min(limit, left)
    return MessagePage(
        messages=[messages[start + step * number] for number in range(count)],
        has_more=left > limit,
        version=state.version,
    )
