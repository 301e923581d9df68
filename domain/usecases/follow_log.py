"""Following the event log: pages of what is there, then of what is committed, each position once and in order.

The store is the truth: a tail reads up to a position that it knows is committed, and positions are gap-free and in
commit order, so nothing can appear behind it. Wake-ups only say when to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from manent.domain.access import Principal
from manent.domain.errors import ShuttingDown, TooManyTails
from manent.domain.ports import EventFilter, EventStore, LogEntry
from manent.domain.usecases.query_log import within_rights

PAGE = 64
TAILS_MAX = 64
READS_MAX = 2
POLL_S = 0.5


class LogSignal:
    """How far the log is known to have come, and a wake-up when that changes. Belongs to one event loop.

    Whoever learns of a commit calls ``notify``: the committer of this process, a database's notifications, a reader
    that polled. A call too many costs nothing, one too few costs one interval of polling.
    """

    def __init__(self) -> None:
        self._position = 0
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def position(self) -> int:
        """The highest position that is known to be committed."""
        return self._position

    @property
    def closed(self) -> bool:
        """Whether nobody should wait any more."""
        return self._closed

    def notify(self, position: int) -> None:
        """Everything up to ``position`` is committed."""
        if position > self._position:
            self._position = position
            self._wake()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self._closed = True
        self._wake()

    async def wait(self, after: int, timeout_s: float) -> bool:
        """Return True once something above ``after`` is committed, or False after ``timeout_s`` or at the end."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._position <= after and not self._closed:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return self._position > after

    def _wake(self) -> None:
        # Everybody who waits holds the old event; who comes later looks at the position first.
        self._changed.set()
        self._changed = asyncio.Event()


class Tail:
    """One reader's way along the log. It holds nothing between two calls but its position."""

    def __init__(
        self,
        store: EventStore,
        signal: LogSignal,
        event_filter: EventFilter,
        *,
        after: int,
        reads: asyncio.Semaphore,
        poll_s: float,
    ) -> None:
        self._store = store
        self._signal = signal
        self._filter = event_filter
        self._position = after
        self._reads = reads
        self._poll_s = poll_s
        self._has_looked = False

    async def next(self, wait_s: float) -> Sequence[LogEntry] | None:
        """The next events, at most ``PAGE``; none after ``wait_s`` of silence; None where no event can follow.

        Raises:
            ShuttingDown: the server drains; a tail that resumes elsewhere misses nothing.
            StoreUnavailable: the database does not answer.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        if not self._has_looked:
            self._has_looked = True
            await self._look()
        while True:
            if self._signal.closed:
                raise ShuttingDown("the server shuts down; resume with the last id")
            if self._signal.position > self._position:
                page = await self._read(self._signal.position)
                if page:
                    return page
            elif await self._is_over():
                return None
            left_s = until_s - loop.time()
            if left_s <= 0:
                return ()
            if not await self._signal.wait(self._position, min(self._poll_s, left_s)):
                await self._look()

    async def _read(self, known: int) -> Sequence[LogEntry]:
        """A page of what lies up to ``known``; a page that is not full was all of it."""
        bound = known if self._filter.max_position is None else min(known, self._filter.max_position)
        wanted = replace(self._filter, max_position=bound)
        async with self._reads:
            page = await self._store.query(wanted, after_position=self._position, limit=PAGE)
        self._position = page[-1].header.position if len(page) == PAGE else known
        return page

    async def _look(self) -> None:
        """Other processes commit without a word to this one, and every other tail profits from what one finds."""
        async with self._reads:
            self._signal.notify((await self._store.head()).size)

    async def _is_over(self) -> bool:
        if self._filter.max_position is not None and self._position >= self._filter.max_position:
            return True
        if self._filter.until_us is None:
            return False
        later = EventFilter(since_us=self._filter.until_us + 1, max_position=self._position)
        async with self._reads:
            return bool(await self._store.query(later, limit=1))


class FollowLog:
    """Opens tails, a bounded number of them, and ends them together.

    All tails together keep at most ``READS_MAX`` of the store's readers busy: conversations come first.
    """

    def __init__(
        self, store: EventStore, signal: LogSignal, *, tails_max: int = TAILS_MAX, poll_s: float = POLL_S
    ) -> None:
        self._store = store
        self._signal = signal
        self._tails_max = tails_max
        self._poll_s = poll_s
        self._open = 0
        self._reads = asyncio.Semaphore(READS_MAX)

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
            PermissionDenied: ``principal`` has not the scope ``audit``.
            TooManyTails: the bound on tails is reached.
            ShuttingDown: the server drains.
        """
        own = within_rights(principal, event_filter)
        if self._signal.closed:
            raise ShuttingDown("the server shuts down")
        if self._open >= self._tails_max:
            raise TooManyTails(f"{self._open} readers follow the log already, and more are not served")
        self._open += 1
        try:
            yield Tail(
                self._store, self._signal, own, after=after_position, reads=self._reads, poll_s=self._poll_s
            )
        finally:
            self._open -= 1

    def close(self) -> None:
        """End every tail: its next event is the news that the server shuts down."""
        self._signal.close()
