"""Loading a session's state and recording decisions about it: the path every use case on sessions takes."""

from __future__ import annotations

from collections.abc import Sequence

from manent.domain.access import Principal
from manent.domain.events import SessionEvent, session_stream
from manent.domain.ports import ContextCache, EventStore
from manent.domain.records import Appended, EventContext, IdempotencyKey
from manent.domain.session import SessionState, fold

PAGE = 500


class Sessions:
    """Folded sessions over the event store, with a cache in front that may be wrong about nothing but age."""

    def __init__(self, store: EventStore, cache: ContextCache) -> None:
        self._store = store
        self._cache = cache

    async def load(self, tenant: str, session_id: str) -> SessionState:
        """The state as it stands in the log now.

        A cached state is never trusted to be the latest: the events behind its version are read from the store,
        one indexed look-up, so that other processes and nodes may write to the same session.
        """
        cached = await self._cache.get(tenant, session_id)
        state = cached or SessionState(session_id=session_id, tenant=tenant)
        latest = await self._catch_up(state, max_version=None)
        if latest.version > 0 and latest is not cached:
            await self._cache.put(latest)
        return latest

    async def load_at(self, tenant: str, session_id: str, version: int) -> SessionState:
        """The state as it stood at ``version`` (or at the last one, if there are fewer)."""
        return await self._catch_up(SessionState(session_id=session_id, tenant=tenant), max_version=version)

    async def record(
        self,
        state: SessionState,
        events: Sequence[SessionEvent],
        *,
        context: EventContext,
        idempotency: IdempotencyKey | None = None,
    ) -> tuple[SessionState, Appended]:
        """Append what was decided on ``state``; return the state after it (unchanged, where the key was used before).

        Raises:
            VersionConflict: somebody else wrote to the session; load it again and decide again.
        """
        appended = await self._store.append(
            session_stream(state.session_id),
            events,
            expected_version=state.version,
            context=context,
            idempotency=idempotency,
        )
        if appended.repeated:
            return state, appended
        after = fold(state, events)
        await self._cache.put(after)
        return after, appended

    async def _catch_up(self, state: SessionState, *, max_version: int | None) -> SessionState:
        while True:
            page = await self._store.read_stream(
                state.tenant,
                session_stream(state.session_id),
                after_version=state.version,
                max_version=max_version,
                limit=PAGE,
            )
            state = fold(state, (recorded.event for recorded in page))
            if len(page) < PAGE:
                return state


def context_of(
    principal: Principal, *, request_id: str | None, correlation_id: str | None = None, causation_id: str | None = None
) -> EventContext:
    """The event context of something that ``principal`` caused."""
    return EventContext(
        tenant=principal.tenant,
        actor=principal.subject,
        request_id=request_id,
        correlation_id=correlation_id,
        causation_id=causation_id,
    )
