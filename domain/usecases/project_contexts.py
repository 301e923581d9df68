"""The projector: what any server recorded reaches the shared contexts, also where its own write did not.

Servers write through after each commit; this follows the log behind them, and mends what they could not. Killed at any
point it goes on from its checkpoint: to do a page again changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from manent.domain.events import is_session_stream, session_of
from manent.domain.ports import Clock, EventStore
from manent.domain.projections import CacheUnavailable, SessionKey, SharedContexts
from manent.domain.records import LogEntry
from manent.domain.subscriptions import HeldBy, Lease, SubscriptionStore
from manent.domain.usecases.log_reader import LogReader
from manent.domain.usecases.sessions import Sessions
from manent.domain.usecases.subscriptions import SubscriptionLimits, SubscriptionStalled, run_subscription

NAME = "contexts"
AWAY_S = 2.0

_log = logging.getLogger("manent.projections")


class ProjectContexts:
    """Follows the log for as long as a server runs; of several servers, one does and the others stand by."""

    def __init__(
        self,
        *,
        store: EventStore,
        shared: SharedContexts,
        reader: LogReader,
        subscriptions: SubscriptionStore,
        clock: Clock,
        owner: str,
        kept_for_s: float,
        limits: SubscriptionLimits | None = None,
    ) -> None:
        self._store = store
        self._shared = shared
        self._sessions = Sessions(store, shared)
        self._reader = reader
        self._subscriptions = subscriptions
        self._clock = clock
        self._owner = owner
        self._kept_for_us = int(kept_for_s * 1_000_000)
        self._limits = limits

    async def run(self) -> None:
        """Project until the log closes. A cache that is away is waited for; the checkpoint waits as well.

        Raises:
            SubscriptionStalled: a session cannot be projected for another reason.
        """
        await self._begin_at_the_end()
        while not self._reader.signal.closed:
            try:
                await run_subscription(
                    NAME,
                    self._project,
                    reader=self._reader,
                    subscriptions=self._subscriptions,
                    clock=self._clock,
                    owner=self._owner,
                    limits=self._limits,
                )
            except SubscriptionStalled as stalled:
                if not isinstance(stalled.__cause__, CacheUnavailable):
                    raise
                await self._until_it_answers()

    async def _begin_at_the_end(self) -> None:
        """Start a new checkpoint behind what is there: old sessions are shared when they are used, or by a rebuild."""
        if await self._subscriptions.position(NAME) > 0:
            return
        lease = await self._subscriptions.acquire(NAME, owner=self._owner, ttl_s=AWAY_S)
        if isinstance(lease, HeldBy):
            return
        if lease.position == 0:
            lease = await self._subscriptions.advance(lease, (await self._store.head()).size)
        await self._subscriptions.release(lease)

    async def _project(self, page: Sequence[LogEntry], _lease: Lease) -> None:
        """Bring every session of the page to at least the version that it has there."""
        wanted = self._versions(page)
        if not wanted:
            return
        kept = await self._shared.versions(list(wanted))
        for (session, version), kept_version in zip(wanted.items(), kept, strict=True):
            if kept_version is not None and kept_version < version:
                await self._sessions.load(*session)

    def _versions(self, page: Sequence[LogEntry]) -> dict[SessionKey, int]:
        """The sessions of a page with their last versions in it; not those that would have expired by now."""
        oldest_us = self._clock.now_us() - self._kept_for_us
        return {
            (entry.header.tenant, session_of(entry.header.stream_id)): entry.header.stream_version
            for entry in page
            if is_session_stream(entry.header.stream_id) and entry.header.recorded_at_us > oldest_us
        }

    async def _until_it_answers(self) -> None:
        while not self._reader.signal.closed:
            await self._clock.sleep(AWAY_S)
            try:
                await self._shared.epoch()
            except CacheUnavailable:
                continue
            _log.info("the projector goes on")
            return
