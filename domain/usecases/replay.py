"""A conversation as it stood: at a version of its stream, at a position of the log, or at a time."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.access import Principal, may_audit, note_reading
from manent.domain.errors import InvalidValue
from manent.domain.events import session_stream
from manent.domain.ports import Clock, EventStore
from manent.domain.records import EventHeader
from manent.domain.session import SessionState, SessionStatus
from manent.domain.session_upkeep import check_readable
from manent.domain.usecases.sessions import Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOf:
    """A moment of a session; nothing given is now, and more than one is refused.

    ``version`` counts the events of its stream, ``position`` those of the log; ``time_us`` is microseconds since 1970.
    All are inclusive.
    """

    version: int | None = None
    position: int | None = None
    time_us: int | None = None


NOW = AsOf()


class Replay:
    """Folds of the past. What its owner closed still replays, for auditors: the log keeps it."""

    def __init__(self, store: EventStore, sessions: Sessions, clock: Clock) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock

    async def at(self, principal: Principal, session_id: str, moment: AsOf = NOW) -> SessionState:
        """The session as it stood at ``moment``.

        Raises:
            SessionNotFound: it was never started, ``principal`` may not read it, or it was deleted.
            SessionGone: it expired. Auditors read what was deleted or has expired all the same.
            InvalidValue: the stream has no such version, had not begun by then, or several moments are named.
        """
        now = await self._sessions.load(principal.tenant, session_id)
        self._check(principal, now)
        version = await self._version(now, moment)
        await note_reading(principal, resource=session_stream(session_id), owner=now.owner)
        return now if version == now.version else await self._sessions.load_at(now.tenant, session_id, version)

    def _check(self, principal: Principal, now: SessionState) -> None:
        audits = may_audit(principal, tenant=now.tenant)
        if not audits or now.status is SessionStatus.ABSENT:
            check_readable(now, principal, now_us=self._clock.now_us())

    async def _version(self, now: SessionState, moment: AsOf) -> int:
        given = [value for value in (moment.version, moment.position, moment.time_us) if value is not None]
        if len(given) > 1:
            raise InvalidValue("as_of_version, as_of_position and as_of name one moment; send one of them")
        if moment.version is not None:
            if not 1 <= moment.version <= now.version:
                raise InvalidValue(
                    f"version {moment.version} does not exist; the session has 1 to {now.version}",
                    param="as_of_version",
                )
            return moment.version
        if moment.position is not None:
            return await self._last_at(now, "position", moment.position, param="as_of_position")
        if moment.time_us is not None:
            return await self._last_at(now, "recorded_at_us", moment.time_us, param="as_of")
        return now.version

    async def _last_at(self, now: SessionState, member: str, bound: int, *, param: str) -> int:
        """The last version whose header has at most ``bound`` there; versions, positions and times grow together."""
        first = await self._member(now, 1, member)
        if bound < first:
            raise InvalidValue(f"the session did not exist yet: its first event has {member} {first}", param=param)
        low, high = 1, now.version
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if await self._member(now, middle, member) <= bound else (low, middle - 1)
        return low

    async def _member(self, now: SessionState, version: int, member: str) -> int:
        (recorded,) = await self._store.read_stream(
            now.tenant, session_stream(now.session_id), after_version=version - 1, limit=1
        )
        header: EventHeader = recorded.header
        return header.position if member == "position" else header.recorded_at_us
