"""A session: its state as a fold over its events, and the decisions that add events. Pure functions only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial

from manent.domain.access import Principal, may_use
from manent.domain.errors import (
    SessionAlreadyExists,
    SessionBusy,
    SessionClosed,
    SessionGone,
    SessionNotFound,
)
from manent.domain.event_times import happened_at_us
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionOutcome,
    CompletionRequested,
    DomainEvent,
    HistoryRevised,
    MessageAppended,
    SessionDeleted,
    SessionEvent,
    SessionExpired,
    SessionMetadataChanged,
    SessionStarted,
    SystemPromptReplaced,
)
from manent.domain.history import History
from manent.domain.messages import Message, Role
from manent.domain.replay_events import Fork
from manent.domain.response_events import ItemRemoved
from manent.domain.session_limits import check_metadata, check_session_id, check_ttl
from manent.domain.tool_messages import check_results


class SessionStatus(StrEnum):
    """Where a session is in its life."""

    ABSENT = "absent"
    OPEN = "open"
    EXPIRED = "expired"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """What the events of a session add up to. ``version`` counts them all, ``changed_at_us`` is the last one's time.

    ``last_event_id`` is that of event ``version``; it is empty where that is only decided, or not known.
    """

    session_id: str
    tenant: str
    version: int = 0
    status: SessionStatus = SessionStatus.ABSENT
    owner: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    ttl_s: int | None = None
    parent: Fork | None = None
    messages: History = field(default_factory=History)
    open_completion_id: str | None = None
    started_at_us: int = 0
    changed_at_us: int = 0
    last_event_id: str = field(default="", compare=False)

    @property
    def expires_at_us(self) -> int | None:
        """When it expires unless something happens in it before, or did expire; None is never, or not before an answer.

        Its time to live begins again with every event, and does not run while a completion is open.
        """
        if self.status is SessionStatus.EXPIRED:
            return self.changed_at_us
        if self.status is not SessionStatus.OPEN or self.ttl_s is None or self.open_completion_id is not None:
            return None
        return self.changed_at_us + self.ttl_s * 1_000_000

    @property
    def here(self) -> Fork:
        """The session as it stands, as what a fork begins with."""
        return Fork(session_id=self.session_id, version=self.version)

    @property
    def leading_system(self) -> list[Message]:
        """The system messages that the conversation begins with."""
        return leading_system(self.messages)

    @property
    def unanswered(self) -> list[Message]:
        """The messages at the end that no assistant's message follows."""
        start = len(self.messages)
        while start > 0 and self.messages[start - 1].role is not Role.ASSISTANT:
            start -= 1
        return self.messages[start:]


def leading_system(messages: Sequence[Message]) -> list[Message]:
    """The system messages at the beginning."""
    found: list[Message] = []
    for message in messages:
        if message.role is not Role.SYSTEM:
            break
        found.append(message)
    return found


def evolve(state: SessionState, event: DomainEvent) -> SessionState:  # noqa: PLR0911, C901 (one case an event)
    """The state after ``event``. Total: every event that was ever recorded has a case or changes the version only."""
    changed_at_us = max(state.changed_at_us, happened_at_us(event) or 0)
    after = partial(replace, state, version=state.version + 1, changed_at_us=changed_at_us, last_event_id="")
    match event:
        case SessionStarted():
            return after(
                status=SessionStatus.OPEN,
                owner=event.owner,
                metadata=event.metadata,
                ttl_s=event.ttl_s,
                parent=event.parent,
                started_at_us=event.started_at_us,
            )
        case MessageAppended():
            return after(messages=state.messages.extended(event.message))
        case SystemPromptReplaced():
            rest = state.messages[len(state.leading_system) :]
            return after(messages=History((*event.messages, *rest)))
        case HistoryRevised():
            return after(messages=state.messages.truncated(event.from_index))
        case ItemRemoved():
            left = () if event.left is None else (event.left,)
            before, behind = state.messages[: event.message_index], state.messages[event.message_index + 1 :]
            return after(messages=History((*before, *left, *behind)))
        case CompletionRequested():
            return after(open_completion_id=event.completion_id)
        case CompletionGenerated() | CompletionFailed() | CompletionCancelled():
            still_open = None if state.open_completion_id == event.completion_id else state.open_completion_id
            return after(open_completion_id=still_open)
        case SessionMetadataChanged():
            return after(metadata=event.metadata, ttl_s=event.ttl_s)
        case SessionExpired():
            return after(status=SessionStatus.EXPIRED)
        case SessionDeleted():
            return after(status=SessionStatus.DELETED)
        case _:
            return after()


def check_alive(state: SessionState, *, now_us: int) -> None:
    """Raise SessionGone if the session has expired, whether or not SessionExpired stands in the log yet."""
    expires_at_us = state.expires_at_us
    if expires_at_us is not None and expires_at_us <= now_us:
        when = datetime.fromtimestamp(expires_at_us // 1_000_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        raise SessionGone(
            f"session {state.session_id!r} expired at {when}, {state.ttl_s} s after its last event; start one with "
            "another id"
        )


def check_usable(state: SessionState, by: Principal, *, now_us: int) -> None:
    """Raise unless ``by`` may go on with the session.

    Raises:
        SessionNotFound: nothing was started, or it is somebody else's.
        SessionClosed: it was deleted.
        SessionGone: it expired.
    """
    if state.status is SessionStatus.ABSENT or not may_use(by, tenant=state.tenant, owner=state.owner):
        raise SessionNotFound(f"no session {state.session_id!r} was found")
    if state.status is SessionStatus.DELETED:
        raise SessionClosed(f"session {state.session_id!r} was deleted; start one with another id")
    check_alive(state, now_us=now_us)


def decide_start(
    state: SessionState,
    *,
    metadata: Mapping[str, str],
    ttl_s: int | None,
    messages: Sequence[Message],
    by: Principal,
    now_us: int,
    parent: Fork | None = None,
) -> list[SessionEvent]:
    """The events that start a session with its first messages; a fork has those of its ``parent`` before them.

    Raises:
        SessionAlreadyExists: the id was used before, by whomever.
        InvalidValue: id, metadata or ttl_s are beyond their limits, or a tool's result answers no call.
    """
    check_session_id(state.session_id)
    check_metadata(metadata)
    check_ttl(ttl_s)
    if state.status is not SessionStatus.ABSENT:
        raise SessionAlreadyExists(f"session {state.session_id!r} exists already")
    check_results((), messages, complete=False)
    started = SessionStarted(
        session_id=state.session_id,
        tenant=by.tenant,
        owner=by.subject,
        metadata=dict(metadata),
        ttl_s=ttl_s,
        parent=parent,
        started_at_us=now_us,
    )
    return [started, *appended(state.session_id, messages, by=by, now_us=now_us)]


def appended(session_id: str, messages: Iterable[Message], *, by: Principal, now_us: int) -> list[MessageAppended]:
    """One MessageAppended for each of ``messages``, said by ``by`` and generated by no completion."""
    return [
        MessageAppended(
            session_id=session_id,
            message=message,
            appended_by=by.subject,
            completion_id=None,
            appended_at_us=now_us,
        )
        for message in messages
    ]


def decide_request(state: SessionState, requested: CompletionRequested, *, by: Principal) -> list[SessionEvent]:
    """The event that opens a completion.

    Raises:
        SessionNotFound, SessionClosed, SessionGone: as ``check_usable``.
        SessionBusy: another completion of the session is open.
    """
    check_usable(state, by, now_us=requested.requested_at_us)
    if state.open_completion_id is not None:
        raise SessionBusy(f"completion {state.open_completion_id} of session {state.session_id!r} is still open")
    return [requested]


def decide_close(state: SessionState, outcome: CompletionOutcome, *, now_us: int) -> list[SessionEvent]:
    """The events that end a completion; none where it was ended already, so that one terminal event stands."""
    if state.open_completion_id != outcome.completion_id:
        return []
    if not isinstance(outcome, CompletionGenerated) or state.status is not SessionStatus.OPEN:
        return [outcome]
    return [
        outcome,
        MessageAppended(
            session_id=state.session_id,
            message=outcome.answer,
            appended_by="assistant",
            completion_id=outcome.completion_id,
            appended_at_us=now_us,
        ),
    ]


def decide_delete(state: SessionState, *, by: Principal, now_us: int) -> list[SessionEvent]:
    """The event that closes the session for good.

    Raises:
        SessionNotFound, SessionClosed, SessionGone: as ``check_usable``.
        SessionBusy: a completion is open; cancel it first.
    """
    check_usable(state, by, now_us=now_us)
    if state.open_completion_id is not None:
        raise SessionBusy(f"completion {state.open_completion_id} of session {state.session_id!r} is still open")
    return [SessionDeleted(session_id=state.session_id, deleted_by=by.subject, deleted_at_us=now_us)]
