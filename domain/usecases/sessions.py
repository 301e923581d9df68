"""Loading a session's state and recording decisions about it: the path every use case on sessions takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from manent.domain.access import Principal
from manent.domain.errors import StoreUnavailable, VersionConflict
from manent.domain.events import SessionEvent, session_of, session_stream
from manent.domain.history import History
from manent.domain.ports import ContextCache, EventStore
from manent.domain.records import Appended, EventContext, EventFilter, IdempotencyKey, StreamEvent
from manent.domain.replay_events import Fork
from manent.domain.session import SessionState
from manent.domain.session_fold import fold
from manent.domain.usecases.lineage import ancestors, parent_of

PAGE = 1000
CATCH_UP_PAGE = 64
CONFLICTS_MAX = 8

Decide = Callable[[SessionState], Awaitable[Sequence[SessionEvent]]]
"""What happens to a session as it stands; nothing, where there is nothing to record."""


class _NotOfThisLog(Exception):
    """A cached state ends with an event that the log does not have: one was restored, or the other tampered with."""

    def __init__(self, state: SessionState) -> None:
        super().__init__(f"version {state.version} of session {state.session_id!r} is not in the log")
        self.state = state


class Sessions:
    """Folded sessions over the event store, with a cache in front that may be wrong about nothing but age."""

    def __init__(self, store: EventStore, cache: ContextCache) -> None:
        self._store = store
        self._cache = cache

    async def load(self, tenant: str, session_id: str) -> SessionState:
        """The state as it stands in the log now.

        A cached state is never trusted to be the latest, nor to be of this log: its last event and those behind it are
        read from the store, one indexed look-up, so that other processes and nodes may write to the same session.
        """
        cached = await self._cache.get(tenant, session_id)
        if cached is not None:
            with suppress(_NotOfThisLog):
                latest = await self._catch_up(cached, max_version=None)
                if latest is not cached:
                    await self._cache.put(latest, before=cached)
                return latest
            await self._cache.forget(tenant, session_id)
        latest = await self._catch_up(SessionState(session_id=session_id, tenant=tenant), max_version=None)
        if latest.version > 0:
            await self._cache.put(latest)
        return latest

    async def load_at(self, tenant: str, session_id: str, version: int) -> SessionState:
        """The state as it stood at ``version`` (or at the last one, if there are fewer)."""
        return await self._catch_up(SessionState(session_id=session_id, tenant=tenant), max_version=version)

    async def recorded_at(self, appended: Appended) -> SessionState:
        """The session as it stood after an earlier append, which an idempotency key was answered with."""
        (entry,) = await self._store.query(EventFilter(), after_position=appended.position - 1, limit=1)
        now = await self.load(entry.header.tenant, session_of(entry.header.stream_id))
        if now.version == appended.stream_version:
            return now
        return await self.load_at(now.tenant, now.session_id, appended.stream_version)

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
        after = fold(state, events, last_event_id=appended.last_event_id)
        await self._cache.put(after, before=state)
        return after, appended

    async def decide_and_record(
        self,
        tenant: str,
        session_id: str,
        decide: Decide,
        *,
        context: EventContext,
        idempotency: IdempotencyKey | None = None,
        conflicts_max: int = CONFLICTS_MAX,
        past: History | None = None,
    ) -> tuple[SessionState, Appended | None]:
        """Record what ``decide`` says of the session as it stands, asked again whenever somebody else was faster.

        ``decide`` may raise VersionConflict itself, to be asked again. A session that is to begin as a fork has the
        ``past`` of its parent before it.

        Returns:
            The state after it, and where it landed; where nothing was to be recorded, the state as it stands and None.

        Raises:
            StoreUnavailable: somebody else was faster ``conflicts_max`` times.
        """
        for _ in range(conflicts_max):
            state = await self.load(tenant, session_id)
            if past is not None and state.version == 0:
                state = replace(state, messages=past)
            with suppress(VersionConflict):
                events = await decide(state)
                if not events:
                    return state, None
                return await self.record(state, events, context=context, idempotency=idempotency)
        raise StoreUnavailable(f"session {session_id!r} changed {conflicts_max} times while it was written to")

    async def _catch_up(self, state: SessionState, *, max_version: int | None, inherits: bool = True) -> SessionState:
        """``state`` with what the log has behind it, the very same where that is nothing.

        Raises:
            _NotOfThisLog: the log does not have the event that ``state`` ends with.
        """
        limit = CATCH_UP_PAGE if state.version else PAGE
        while True:
            page = await self._store.read_events(
                state.tenant,
                session_stream(state.session_id),
                after_version=max(state.version - 1, 0),
                max_version=max_version,
                limit=limit,
            )
            new = page[1:] if state.version else page
            if state.version and not (page and _is_last_of(state, page[0])):
                raise _NotOfThisLog(state)
            if inherits and state.version == 0 and new and (fork := parent_of(new[0].event)) is not None:
                state = replace(state, messages=await self._inherited(state.tenant, fork))
            if new:
                state = fold(state, (step.event for step in new), last_event_id=new[-1].event_id)
            if len(page) < limit:
                return state
            limit = PAGE

    async def _inherited(self, tenant: str, fork: Fork) -> History:
        """The messages that a fork begins with: its parent's, as they stood where it branched off."""
        while True:
            try:
                return await self._inherited_from(tenant, fork)
            except _NotOfThisLog as refuted:
                await self._cache.forget(tenant, refuted.state.session_id)

    async def _inherited_from(self, tenant: str, fork: Fork) -> History:
        messages = History()
        for known, version in await ancestors(self._store, self._cache, tenant, fork):
            state = known if known.version else replace(known, messages=messages)
            messages = (await self._catch_up(state, max_version=version, inherits=False)).messages
        return messages


def _is_last_of(state: SessionState, found: StreamEvent) -> bool:
    return found.stream_version == state.version and state.last_event_id in {"", found.event_id}


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
