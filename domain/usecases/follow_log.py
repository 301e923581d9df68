"""Following the event log: pages of what is there, then of what is committed, each position once and in order.

The store is the truth: a tail reads up to a position that it knows is committed, and positions are gap-free and in
commit order, so nothing can appear behind it. Wake-ups only say when to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from manent.domain.access import Principal, Scope, has_scope, note_reading
from manent.domain.errors import ShuttingDown, TooManyTails
from manent.domain.ports import EventStore
from manent.domain.records import EventFilter, EventHeader, LogEntry
from manent.domain.usecases.log_reader import PAGE, POLL_S, LogReader, LogSignal
from manent.domain.usecases.query_log import within_rights

TAILS_MAX = 64


class Tail:
    """One reader's way along the log. It holds nothing between two calls but its position."""

    def __init__(self, reader: LogReader, event_filter: EventFilter, *, after: int) -> None:
        self._reader = reader
        self._signal = reader.signal
        self._filter = event_filter
        self._position = after
        self._rumors: int | None = None

    @property
    def position(self) -> int:
        """Everything up to here was looked at."""
        return self._position

    async def next(self, wait_s: float) -> Sequence[LogEntry] | None:
        """The next events, at most ``PAGE``; none after ``wait_s`` of silence; None where no event can follow.

        Raises:
            ShuttingDown: the server drains; a tail that resumes elsewhere misses nothing.
            StoreUnavailable: the database does not answer.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        if self._rumors is None:
            self._rumors = self._signal.rumors
            await self._reader.look()
        while not self._signal.closed:
            if self._signal.position > self._position:
                page = await self._read(self._signal.position)
                if page:
                    return page
            elif await self._is_over():
                return None
            left_s = until_s - loop.time()
            if left_s <= 0:
                return ()
            if not await self._signal.wait(self._position, self._rumors, min(self._reader.poll_s, left_s)):
                self._rumors = self._signal.rumors
                await self._reader.look()
        raise ShuttingDown("the server shuts down; resume with the last id")

    async def _read(self, known: int) -> Sequence[LogEntry]:
        """What matches of a page of what lies up to ``known``; the position is behind all that was looked at."""
        if self._filter.model_id is None:  # which no header names
            recent = await self._reader.recent(self._position, known)
            if recent:
                self._position = recent[-1].header.position
                return [entry for entry in recent if _matches(self._filter, entry.header)]
        bound = known if self._filter.max_position is None else min(known, self._filter.max_position)
        page = await self._reader.query(replace(self._filter, max_position=bound), after=self._position)
        self._position = page[-1].header.position if len(page) == PAGE else known
        return page

    async def _is_over(self) -> bool:
        if self._filter.max_position is not None and self._position >= self._filter.max_position:
            return True
        if self._filter.until_us is None:
            return False
        later = EventFilter(since_us=self._filter.until_us + 1, max_position=self._position)
        return bool(await self._reader.query(later, after=0, limit=1))


class FollowLog:
    """Opens tails, a bounded number of them, and ends them together."""

    def __init__(
        self, store: EventStore, signal: LogSignal, *, tails_max: int = TAILS_MAX, poll_s: float = POLL_S
    ) -> None:
        self._reader = LogReader(store, signal, poll_s=poll_s)
        self._tails_max = tails_max
        self._open = 0

    @property
    def open_tails(self) -> int:
        """How many readers follow the log."""
        return self._open

    @asynccontextmanager
    async def tail(
        self, principal: Principal, event_filter: EventFilter, *, after_position: int
    ) -> AsyncGenerator[Tail, None]:
        """A tail of the matching events with positions above ``after_position``.

        Raises:
            PermissionDenied: ``principal`` has not the right (``within_rights``).
            TooManyTails: the bound on tails is reached.
            ShuttingDown: the server drains.
        """
        own = within_rights(principal, event_filter)
        if self._reader.signal.closed:
            raise ShuttingDown("the server shuts down")
        if self._open >= self._tails_max:
            raise TooManyTails(f"{self._open} readers follow the log already, and more are not served")
        self._open += 1
        try:
            if has_scope(principal, Scope.AUDIT):  # what will come is not known: one event for the whole of it
                await note_reading(principal, resource=f"log from {after_position + 1} on", owner=own.actor)
            yield Tail(self._reader, own, after=after_position)
        finally:
            self._open -= 1

    def close(self) -> None:
        """End every tail: its next event is the news that the server shuts down."""
        self._reader.signal.close()


def _matches(wanted: EventFilter, header: EventHeader) -> bool:
    """What the store's query decides, for an event that was read already; not for a model."""
    equal = (
        (wanted.tenant, header.tenant),
        (wanted.stream_id, header.stream_id),
        (wanted.type, header.type),
        (wanted.actor, header.actor),
        (wanted.request_id, header.request_id),
        (wanted.correlation_id, header.correlation_id),
    )
    ranges = (
        (wanted.min_position, header.position, wanted.max_position),
        (wanted.since_us, header.recorded_at_us, wanted.until_us),
    )
    return all(want is None or want == have for want, have in equal) and all(
        (low is None or low <= value) and (high is None or value <= high) for low, value, high in ranges
    )
