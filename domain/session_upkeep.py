"""Decisions about a session beside conversing in it: which version was meant, changing, adding messages, expiring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from manent.domain.access import Principal, may_read
from manent.domain.errors import PreconditionFailed, SessionBusy, SessionNotFound
from manent.domain.events import SessionEvent, SessionExpired, SessionMetadataChanged
from manent.domain.messages import Message
from manent.domain.session import SessionState, SessionStatus, appended, check_alive, check_usable
from manent.domain.session_limits import check_metadata, check_ttl
from manent.domain.tool_messages import check_results


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedVersion:
    """The versions that a session may be at for a request to be carried out; None is any, as long as it exists."""

    versions: frozenset[int] | None = None

    @classmethod
    def of(cls, *versions: int) -> ExpectedVersion:
        """One of ``versions``."""
        return cls(versions=frozenset(versions))

    def check(self, state: SessionState) -> None:
        """Raise PreconditionFailed unless the session is at one of the versions."""
        if state.version == 0:
            raise PreconditionFailed(
                f"session {state.session_id!r} does not exist, and the request expects one that does"
            )
        if self.versions is not None and state.version not in self.versions:
            asked = " or ".join(str(version) for version in sorted(self.versions)) or "no version that it ever had"
            raise PreconditionFailed(
                f"session {state.session_id!r} is at version {state.version}, not {asked}; read it again first"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionChange:
    """What is to be different: ``metadata`` None is as it was, and so is ``ttl_s`` unless ``changes_ttl``."""

    metadata: Mapping[str, str] | None = None
    ttl_s: int | None = None
    changes_ttl: bool = False

    def __bool__(self) -> bool:
        return self.metadata is not None or self.changes_ttl


def check_readable(state: SessionState, by: Principal, *, now_us: int) -> None:
    """Raise unless ``by`` may read the session as it stands.

    Raises:
        SessionNotFound: nothing was started, it was deleted, or it is somebody else's.
        SessionGone: it expired.
    """
    closed = state.status in {SessionStatus.ABSENT, SessionStatus.DELETED}
    if closed or not may_read(by, tenant=state.tenant, owner=state.owner):
        raise SessionNotFound(f"no session {state.session_id!r} was found")
    check_alive(state, now_us=now_us)


def decide_change(
    state: SessionState, change: SessionChange, *, expected: ExpectedVersion | None, by: Principal, now_us: int
) -> list[SessionEvent]:
    """The event that records ``change``, also where it says what holds already; none where it says nothing.

    Raises:
        SessionNotFound, SessionClosed, SessionGone: as ``check_usable``.
        InvalidValue: metadata or ttl_s are beyond their limits.
        PreconditionFailed: the session is not at the expected version.
    """
    check_metadata(change.metadata or {})
    check_ttl(change.ttl_s)
    check_usable(state, by, now_us=now_us)
    if expected is not None:
        expected.check(state)
    if not change:
        return []
    return [
        SessionMetadataChanged(
            session_id=state.session_id,
            metadata=dict(state.metadata if change.metadata is None else change.metadata),
            ttl_s=change.ttl_s if change.changes_ttl else state.ttl_s,
            changed_by=by.subject,
            changed_at_us=now_us,
        )
    ]


def decide_append(
    state: SessionState, messages: Sequence[Message], *, expected: ExpectedVersion | None, by: Principal, now_us: int
) -> list[SessionEvent]:
    """The events that add ``messages``, which no model is asked to answer.

    Raises:
        SessionNotFound, SessionClosed, SessionGone: as ``check_usable``.
        SessionBusy: a completion is open; its answer belongs before them.
        PreconditionFailed: the session is not at the expected version.
        InvalidValue: a tool's result answers no call, or a call is not answered first.
    """
    check_usable(state, by, now_us=now_us)
    if state.open_completion_id is not None:
        raise SessionBusy(f"completion {state.open_completion_id} of session {state.session_id!r} is still open")
    if expected is not None:
        expected.check(state)
    check_results(state.messages, messages, complete=False)
    return [*appended(state.session_id, messages, by=by, now_us=now_us)]


def decide_expire(state: SessionState, *, now_us: int) -> list[SessionEvent]:
    """The event that ends a session that nobody used for its time to live; none where that is not so (any more)."""
    due_at_us = state.expires_at_us
    if state.status is not SessionStatus.OPEN or state.ttl_s is None or due_at_us is None or due_at_us > now_us:
        return []
    return [
        SessionExpired(
            session_id=state.session_id,
            ttl_s=state.ttl_s,
            last_used_at_us=state.changed_at_us,
            expired_at_us=due_at_us,
        )
    ]
