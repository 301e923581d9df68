"""Forks: a new session that begins with another's past, as it stood at a version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from manent.domain.access import Principal
from manent.domain.errors import InvalidValue, SessionAlreadyExists, VersionConflict
from manent.domain.events import SessionEvent
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.records import Appended, EventContext, IdempotencyKey
from manent.domain.replay_events import Fork
from manent.domain.session import SessionState, decide_start
from manent.domain.usecases.lineage import FORK_DEPTH_MAX, lineage
from manent.domain.usecases.replay import AsOf, Replay
from manent.domain.usecases.sessions import Sessions, context_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkCommand:
    """A wish to fork: at a version, or as the session stands; without ``fork_id`` the fork is given an id."""

    principal: Principal
    session_id: str
    at_version: int | None = None
    fork_id: str | None = None
    metadata: dict[str, str] | None = None
    request_id: str | None = None
    idempotency: IdempotencyKey | None = None


class ForkSession:
    """Starts forks. They belong to whoever makes them, and whoever may replay a session may fork it."""

    def __init__(self, *, store: EventStore, sessions: Sessions, replay: Replay, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._sessions = sessions
        self._replay = replay
        self._clock = clock
        self._ids = ids

    async def run(self, command: ForkCommand) -> SessionState:
        """Fork; the state of the new session.

        Raises:
            SessionNotFound: there is no such session for this principal.
            InvalidValue: it has no such version, stands on as many forks as may be, or id or metadata are wrong.
            SessionAlreadyExists: the fork's id is taken.
        """
        if command.idempotency is not None and (kept := await self._store.find_answer(command.idempotency)):
            return await self._sessions.recorded_at(kept)
        at = AsOf(version=command.at_version)
        past = await self._replay.at(command.principal, command.session_id, at)
        context = context_of(command.principal, request_id=command.request_id)
        state, appended = await self.start(
            past,
            by=command.principal,
            fork_id=command.fork_id or self._ids.new("sess_"),
            metadata=command.metadata or {},
            context=context,
            idempotency=command.idempotency,
        )
        return await self._sessions.recorded_at(appended) if appended.repeated else state

    async def start(
        self,
        past: SessionState,
        *,
        by: Principal,
        fork_id: str,
        metadata: dict[str, str],
        context: EventContext,
        idempotency: IdempotencyKey | None = None,
        then: Sequence[SessionEvent] = (),
    ) -> tuple[SessionState, Appended]:
        """Record a fork of ``past``, and ``then`` in the same append; raises as ``run``."""
        await self.check_depth(past)
        absent = await self._sessions.load(by.tenant, fork_id)
        started = decide_start(
            absent,
            metadata=metadata,
            ttl_s=None,
            messages=(),
            by=by,
            now_us=self._clock.now_us(),
            parent=Fork(session_id=past.session_id, version=past.version),
        )
        inheriting = replace(absent, messages=past.messages)
        try:
            return await self._sessions.record(inheriting, [*started, *then], context=context, idempotency=idempotency)
        except VersionConflict:
            raise SessionAlreadyExists(f"session {fork_id!r} exists already") from None

    async def check_depth(self, past: SessionState) -> None:
        """Raise InvalidValue where ``past`` stands on as many forks as may be."""
        segments = await lineage(self._store, past.tenant, past.session_id, past.version)
        if len(segments) > FORK_DEPTH_MAX:
            raise InvalidValue(
                f"session {past.session_id!r} stands on {FORK_DEPTH_MAX} forks already, which is the bound; export it "
                "and import the file for a session of its own",
                param="session_id",
            )
