"""Pages of sessions, as far as somebody may read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from manent.domain.access import Principal, may_audit, may_read, note_reading, one_owner
from manent.domain.errors import InvalidValue, PermissionDenied
from manent.domain.ports import Clock
from manent.domain.session import SessionStatus
from manent.domain.session_limits import check_metadata
from manent.domain.session_list import ListedSession, SessionDirectory, SessionFilter
from manent.domain.usecases.sessions import Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionQuery:
    """What to list: ``created_after_us`` is inclusive, ``created_before_us`` is not; ``after`` is a session's id."""

    status: SessionStatus = SessionStatus.OPEN
    owner: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_after_us: int | None = None
    created_before_us: int | None = None
    after: str | None = None
    limit: int = 20
    descending: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage:
    """A page of sessions; ``has_more`` tells whether others follow in the asked order."""

    sessions: Sequence[ListedSession]
    has_more: bool


class ListSessions:
    """Lists sessions in the order in which they were started: a place that nothing changes."""

    def __init__(self, *, directory: SessionDirectory, sessions: Sessions, clock: Clock) -> None:
        self._directory = directory
        self._sessions = sessions
        self._clock = clock

    async def page(self, principal: Principal, query: SessionQuery) -> SessionPage:
        """A page of one's own sessions; auditors and administrators see all of their tenant.

        Raises:
            PermissionDenied: another's sessions were asked for without the right to read them.
            InvalidValue: ``after`` is no session that ``principal`` may read, or no metadata is like what is asked for.
        """
        check_metadata(query.metadata)
        wanted = SessionFilter(
            tenant=principal.tenant,
            status=query.status,
            owner=_owner(principal, query.owner),
            metadata=query.metadata,
            since_us=query.created_after_us,
            before_us=query.created_before_us,
        )
        position = None if query.after is None else await self._position(principal, query.after)
        found: list[ListedSession] = []
        while True:  # each round is behind the last one; a second is needed only while sessions wait for the sweeper
            page = await self._directory.page(
                wanted, after_position=position, limit=query.limit + 1, descending=query.descending
            )
            found += [session for session in page if await self._stands(session)]
            if len(found) > query.limit or len(page) <= query.limit:
                shown = found[: query.limit]
                await _note_reading(principal, shown)
                return SessionPage(sessions=shown, has_more=len(found) > query.limit)
            position = page[-1].position

    async def _position(self, principal: Principal, session_id: str) -> int:
        session = await self._directory.find(principal.tenant, session_id)
        if session is None or not may_read(principal, tenant=session.tenant, owner=session.owner):
            raise InvalidValue(f"after is {session_id!r}, which is no session of yours", param="after")
        return session.position

    async def _stands(self, session: ListedSession) -> bool:
        """Whether a session that is listed as open is: it may be due, and the sweeper did not come yet."""
        now_us = self._clock.now_us()
        listed_until_us = session.expires_at_us
        if session.status is not SessionStatus.OPEN or listed_until_us is None or listed_until_us > now_us:
            return True
        expires_at_us = (await self._sessions.load(session.tenant, session.session_id)).expires_at_us
        return expires_at_us is None or expires_at_us > now_us


def _owner(principal: Principal, asked: str | None) -> str | None:
    if may_audit(principal, tenant=principal.tenant):
        return asked
    if asked not in {None, principal.subject}:
        raise PermissionDenied("the sessions of others are listed with the scope 'audit' or 'admin'", param="owner")
    return principal.subject


async def _note_reading(principal: Principal, shown: Sequence[ListedSession]) -> None:
    others = [session for session in shown if session.owner != principal.subject]
    if others:
        resource = f"list of sessions from {others[0].session_id} to {others[-1].session_id}"
        owner = one_owner(session.owner for session in others)
        await note_reading(principal, resource=resource, owner=owner, count=len(others))
