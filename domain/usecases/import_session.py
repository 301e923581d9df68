"""Imports: a conversation from a file as a new session of the importer's, recorded as what it is.

The conversation is taken as it stands at the end of the file. Its events are not replayed into the log: they would say
that this log saw them. What the file is, and what it says of itself, stands in SessionImported.

What one append can hold is one. A longer conversation is first written, some messages an append, to a session that
begins with its deletion, so that nobody finds it; the import is then a fork of it, one append again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from manent.domain.access import Principal
from manent.domain.errors import ImportRefused, SessionAlreadyExists, VersionConflict
from manent.domain.events import SessionDeleted, SessionEvent
from manent.domain.messages import Message
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.records import EventContext, IdempotencyKey
from manent.domain.replay_events import Fork, SessionImported
from manent.domain.session import SessionState, appended, decide_start
from manent.domain.usecases.sessions import Sessions, context_of

MESSAGES_MAX = 100_000
AT_ONCE_MAX = 5_000
"""Messages in one append: others' appends wait for it, and the log takes 10,000 events in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFile:
    """A file that was read and checked. ``messages`` have new ids already.

    ``origin`` and ``origin_log_id`` are what a file of events says of itself; ``metadata`` is the session's there.
    """

    format: str
    sha256: str
    size_bytes: int
    messages: tuple[Message, ...]
    metadata: dict[str, str]
    events: int = 0
    origin_log_id: str | None = None
    origin: Fork | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCommand:
    """A wish to import; ``metadata`` None takes the file's, without an id the session is given one."""

    principal: Principal
    file: SessionFile
    session_id: str | None = None
    metadata: dict[str, str] | None = None
    request_id: str | None = None
    idempotency: IdempotencyKey | None = None


class ImportSession:
    """Starts sessions from files."""

    def __init__(self, *, store: EventStore, sessions: Sessions, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._ids = ids

    async def run(self, command: ImportCommand) -> SessionState:
        """Import; the state of the new session.

        Nothing of it is seen before all of it is; what an import that was interrupted had written is no session's.

        Raises:
            ImportRefused: it has more messages than an import may have.
            InvalidValue: id or metadata are beyond their limits.
            SessionAlreadyExists: the id is taken.
        """
        if command.idempotency is not None and (kept := await self._store.find_answer(command.idempotency)):
            return await self._sessions.recorded_at(kept)
        check_length(len(command.file.messages))
        by = command.principal
        session_id = command.session_id or self._ids.new("sess_")
        state = await self._sessions.load(by.tenant, session_id)
        events = self._decided(state, command)
        context = context_of(by, request_id=command.request_id)
        if len(command.file.messages) > AT_ONCE_MAX:
            past = await self._staged(command.file.messages, by, context)
            state = replace(state, messages=past.messages)
            events = self._decided(state, command, parent=Fork(session_id=past.session_id, version=past.version))
        try:
            after, recorded = await self._sessions.record(
                state, events, context=context, idempotency=command.idempotency
            )
        except VersionConflict:
            raise SessionAlreadyExists(f"session {session_id!r} exists already") from None
        return await self._sessions.recorded_at(recorded) if recorded.repeated else after

    async def _staged(self, messages: Sequence[Message], by: Principal, context: EventContext) -> SessionState:
        """A session that holds ``messages`` and was deleted before it held any."""
        state = SessionState(session_id=self._ids.new("sess_"), tenant=by.tenant)
        now_us = self._clock.now_us()
        started = decide_start(state, metadata={}, ttl_s=None, messages=(), by=by, now_us=now_us)
        deleted = SessionDeleted(session_id=state.session_id, deleted_by=by.subject, deleted_at_us=now_us)
        state, _ = await self._sessions.record(state, [*started, deleted], context=context)
        for first in range(0, len(messages), AT_ONCE_MAX):
            some = messages[first : first + AT_ONCE_MAX]
            said = appended(state.session_id, some, by=by, now_us=self._clock.now_us())
            state, _ = await self._sessions.record(state, said, context=context)
        return state

    def _decided(self, state: SessionState, command: ImportCommand, parent: Fork | None = None) -> list[SessionEvent]:
        file, by, now_us = command.file, command.principal, self._clock.now_us()
        metadata = file.metadata if command.metadata is None else command.metadata
        started = decide_start(state, metadata=metadata, ttl_s=None, messages=(), by=by, now_us=now_us, parent=parent)
        imported = SessionImported(
            session_id=state.session_id,
            format=file.format,
            file_sha256=file.sha256,
            file_bytes=file.size_bytes,
            origin_log_id=file.origin_log_id,
            origin=file.origin,
            events=file.events,
            messages=len(file.messages),
            imported_by=by.subject,
            imported_at_us=now_us,
        )
        own = file.messages if parent is None else ()
        return [*started, imported, *appended(state.session_id, own, by=by, now_us=now_us)]


def check_length(messages: int) -> None:
    """Raise ImportRefused beyond ``MESSAGES_MAX``."""
    if messages > MESSAGES_MAX:
        raise ImportRefused(
            f"the conversation has {messages} messages; an import takes at most {MESSAGES_MAX}: import it in parts, "
            "as a session each"
        )
