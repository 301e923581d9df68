"""A session: its state as a fold over its events, and the decisions that add events. Pure functions only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from manent.domain.access import Principal, may_use
from manent.domain.errors import (
    InvalidValue,
    SessionAlreadyExists,
    SessionBusy,
    SessionClosed,
    SessionNotFound,
)
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionOutcome,
    CompletionRequested,
    DomainEvent,
    Fork,
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
from manent.domain.messages import Message, Role, TextPart

SESSION_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:@+=~-]{0,127}")
METADATA_PAIRS_MAX, METADATA_KEY_CHARS_MAX, METADATA_VALUE_CHARS_MAX = 16, 64, 512
TTL_S_MAX = 10 * 366 * 24 * 3600


class SessionStatus(StrEnum):
    """Where a session is in its life."""

    ABSENT = "absent"
    OPEN = "open"
    EXPIRED = "expired"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """What the events of a session add up to. ``version`` counts them all."""

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


def evolve(state: SessionState, event: DomainEvent) -> SessionState:  # noqa: PLR0911 (one case an event)
    """The state after ``event``. Total: every event that was ever recorded has a case or changes the version only."""
    after = replace(state, version=state.version + 1)
    match event:
        case SessionStarted():
            return replace(
                after,
                status=SessionStatus.OPEN,
                owner=event.owner,
                metadata=event.metadata,
                ttl_s=event.ttl_s,
                parent=event.parent,
                started_at_us=event.started_at_us,
                changed_at_us=event.started_at_us,
            )
        case MessageAppended():
            grown = state.messages.extended(event.message)
            return replace(after, messages=grown, changed_at_us=event.appended_at_us)
        case SystemPromptReplaced():
            rest = state.messages[len(state.leading_system) :]
            return replace(after, messages=History((*event.messages, *rest)), changed_at_us=event.replaced_at_us)
        case HistoryRevised():
            kept = state.messages.truncated(event.from_index)
            return replace(after, messages=kept, changed_at_us=event.revised_at_us)
        case CompletionRequested():
            return replace(after, open_completion_id=event.completion_id, changed_at_us=event.requested_at_us)
        case CompletionGenerated() | CompletionFailed() | CompletionCancelled():
            still_open = None if state.open_completion_id == event.completion_id else state.open_completion_id
            return replace(after, open_completion_id=still_open)
        case SessionMetadataChanged():
            return replace(after, metadata=event.metadata, ttl_s=event.ttl_s, changed_at_us=event.changed_at_us)
        case SessionExpired():
            return replace(after, status=SessionStatus.EXPIRED, changed_at_us=event.expired_at_us)
        case SessionDeleted():
            return replace(after, status=SessionStatus.DELETED, changed_at_us=event.deleted_at_us)
        case _:
            return after


def fold(state: SessionState, events: Iterable[DomainEvent]) -> SessionState:
    """The state after all of ``events``."""
    for event in events:
        state = evolve(state, event)
    return state


def check_session_id(session_id: str) -> None:
    """Raise InvalidValue unless ``session_id`` can stand in a stream's name, an address and a log line."""
    if not SESSION_ID.fullmatch(session_id):
        raise InvalidValue(
            f"session_id {session_id[:160]!r} is not valid: use 1 to 128 letters, digits and any of . _ : @ + = ~ -, "
            "beginning with a letter, a digit or _",
            param="session_id",
        )


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise InvalidValue beyond OpenAI's limits: 16 pairs, keys of 64 characters, values of 512."""
    if len(metadata) > METADATA_PAIRS_MAX:
        raise InvalidValue(f"metadata has {len(metadata)} pairs; at most 16 are allowed", param="metadata")
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_CHARS_MAX or len(value) > METADATA_VALUE_CHARS_MAX:
            raise InvalidValue(
                f"metadata key {key[:80]!r} has {len(key)} characters and its value {len(value)}; "
                "at most 64 and 512 are allowed",
                param="metadata",
            )
        if "\0" in key or "\0" in value:
            raise InvalidValue(f"metadata key {key!r} or its value contains U+0000", param="metadata")


def check_usable(state: SessionState, by: Principal) -> None:
    """Raise unless ``by`` may go on with the session.

    Raises:
        SessionNotFound: nothing was started, or it is somebody else's.
        SessionClosed: it was deleted.
    """
    if state.status is SessionStatus.ABSENT or not may_use(by, tenant=state.tenant, owner=state.owner):
        raise SessionNotFound(f"no session {state.session_id!r} was found")
    if state.status is SessionStatus.DELETED:
        raise SessionClosed(f"session {state.session_id!r} was deleted; start one with another id")


def decide_start(
    state: SessionState,
    *,
    metadata: Mapping[str, str],
    ttl_s: int | None,
    messages: Sequence[Message],
    by: Principal,
    now_us: int,
) -> list[SessionEvent]:
    """The events that start a session with its first messages.

    Raises:
        SessionAlreadyExists: the id was used before, by whomever.
        InvalidValue: id, metadata or ttl_s are beyond their limits.
    """
    check_session_id(state.session_id)
    check_metadata(metadata)
    if ttl_s is not None and not 1 <= ttl_s <= TTL_S_MAX:
        raise InvalidValue(f"ttl_s is {ttl_s}; it must be between 1 and {TTL_S_MAX} seconds", param="ttl_s")
    if state.status is not SessionStatus.ABSENT:
        raise SessionAlreadyExists(f"session {state.session_id!r} exists already")
    started = SessionStarted(
        session_id=state.session_id,
        tenant=by.tenant,
        owner=by.subject,
        metadata=dict(metadata),
        ttl_s=ttl_s,
        parent=None,
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
        SessionNotFound, SessionClosed: as ``check_usable``.
        SessionBusy: another completion of the session is open.
    """
    check_usable(state, by)
    if state.open_completion_id is not None:
        raise SessionBusy(f"completion {state.open_completion_id} of session {state.session_id!r} is still open")
    return [requested]


def decide_close(state: SessionState, outcome: CompletionOutcome, *, now_us: int) -> list[SessionEvent]:
    """The events that end a completion; none where it was ended already, so that one terminal event stands."""
    if state.open_completion_id != outcome.completion_id:
        return []
    if not isinstance(outcome, CompletionGenerated) or state.status is not SessionStatus.OPEN:
        return [outcome]
    answer = answer_of(outcome)
    return [
        outcome,
        MessageAppended(
            session_id=state.session_id,
            message=answer,
            appended_by="assistant",
            completion_id=outcome.completion_id,
            appended_at_us=now_us,
        ),
    ]


def answer_of(generated: CompletionGenerated) -> Message:
    """The assistant's message that a completion in a session generated."""
    return Message(
        message_id=generated.message_id,
        role=Role.ASSISTANT,
        content=(TextPart(text=generated.text or ""),),
    )


def decide_delete(state: SessionState, *, by: Principal, now_us: int) -> list[SessionEvent]:
    """The event that closes the session for good.

    Raises:
        SessionNotFound, SessionClosed: as ``check_usable``.
        SessionBusy: a completion is open; cancel it first.
    """
    check_usable(state, by)
    if state.open_completion_id is not None:
        raise SessionBusy(f"completion {state.open_completion_id} of session {state.session_id!r} is still open")
    return [SessionDeleted(session_id=state.session_id, deleted_by=by.subject, deleted_at_us=now_us)]
