"""A conversation as it stood at any version of its stream."""

from __future__ import annotations

from manent.domain.access import Principal, may_read
from manent.domain.errors import InvalidValue, SessionNotFound
from manent.domain.session import SessionState, SessionStatus
from manent.domain.usecases.sessions import Sessions


class Replay:
    """Folds of the past. A deleted session still replays: the log keeps it."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def at(self, principal: Principal, session_id: str, *, version: int | None) -> SessionState:
        """The session as it stood right after event number ``version`` of its stream; None is now.

        Raises:
            SessionNotFound: it was never started, or ``principal`` may not read it.
            InvalidValue: the stream has no such version.
        """
        now = await self._sessions.load(principal.tenant, session_id)
        if now.status is SessionStatus.ABSENT or not may_read(principal, tenant=now.tenant, owner=now.owner):
            raise SessionNotFound(f"no session {session_id!r} was found")
        if version is None:
            return now
        if not 1 <= version <= now.version:
            raise InvalidValue(f"version {version} does not exist; the session has 1 to {now.version}", param="at")
        return await self._sessions.load_at(principal.tenant, session_id, version)
