"""Batches as the log has them: folded, kept for the next look, and appended to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

from manent.domain.batch_events import BatchEvent, batch_stream
from manent.domain.batches import BatchNotFound, BatchState, evolve
from manent.domain.errors import VersionConflict
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from manent.domain.usecases.stream_records import PAGE

CONFLICTS_MAX = 16
KEPT_MAX = 512

Decide = Callable[[BatchState], Sequence[BatchEvent]]
"""The events that a batch as it stands calls for; raises where there can be none."""

_EVENTS = get_args(BatchEvent)


class BatchRecords:
    """The batches of a log. The last ones that were looked at are kept, and caught up with the log on every look."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, str], BatchState] = OrderedDict()

    async def load(self, tenant: str, batch_id: str) -> BatchState:
        """The batch as it stands.

        Raises:
            BatchNotFound: the tenant has none with this id.
        """
        state = self._kept.get((tenant, batch_id))
        version = 0 if state is None else state.version
        while state is None or not state.is_over:
            page = await self._store.read_events(tenant, batch_stream(batch_id), after_version=version, limit=PAGE)
            for recorded in page:
                if isinstance(recorded.event, _EVENTS):
                    state = evolve(tenant, state, recorded.event)
                version = recorded.stream_version
                if state is not None:  # also behind an event that was erased
                    state = replace(state, version=version)
            if len(page) < PAGE:
                break
        if state is None:
            raise BatchNotFound(f"no batch {batch_id!r:.100} was found")
        self._keep(state)
        return state

    async def record(self, state: BatchState, decide: Decide, context: EventContext) -> BatchState:
        """Append what ``decide`` says of the batch, which may have moved on from ``state``; it as it stands then.

        Raises:
            VersionConflict: others changed it each time; StoreUnavailable: the store did not take it.
        """
        batch_id = state.created.batch_id
        for attempt in range(1, CONFLICTS_MAX + 1):
            events = decide(state)
            if not events:
                return state
            try:
                await self._store.append(
                    batch_stream(batch_id), events, expected_version=state.version, context=context
                )
            except VersionConflict:
                if attempt == CONFLICTS_MAX:
                    raise
                state = await self.load(state.tenant, batch_id)
                continue
            for event in events:
                state = evolve(state.tenant, state, event) or state
            self._keep(state)
            return state
        raise AssertionError("the last attempt returns or raises")

    def _keep(self, state: BatchState) -> None:
        place = state.tenant, state.created.batch_id
        self._kept[place] = state
        self._kept.move_to_end(place)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
