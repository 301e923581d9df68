"""What all readers of the live log share: how far it has come, and the events that were committed last."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice
from math import inf

from manent.domain.ports import EventStore
from manent.domain.records import EventFilter, LogEntry

PAGE = 64
READS_MAX = 2
POLL_S = 0.5
RECENT_MAX = 4 * PAGE
RECENT_BYTES_MAX = 4 * 1024 * 1024
HEADER_BYTES = 1024


class LogSignal:
    """How far the log is known to have come, and a wake-up when that changes. Belongs to one event loop.

    Whoever learns of a commit calls ``notify``: the committer of this process, a database's notifications, a reader
    that looked. A call too many costs nothing, one too few costs one interval of polling.
    """

    def __init__(self) -> None:
        self._position = 0
        self._rumors = 0
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def position(self) -> int:
        """The highest position that is known to be committed."""
        return self._position

    @property
    def rumors(self) -> int:
        """How often something was said to be committed without saying how much."""
        return self._rumors

    @property
    def closed(self) -> bool:
        """Whether nobody should wait any more."""
        return self._closed

    def notify(self, position: int | None) -> None:
        """Everything up to ``position`` is committed; None is a rumor: something is, somewhere."""
        if position is None:
            self._rumors += 1
        elif position > self._position:
            self._position = position
        else:
            return
        self._wake()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self._closed = True
        self._wake()

    async def wait(self, after: int, rumors: int, timeout_s: float) -> bool:
        """Return True once something above ``after`` is committed; False at another rumor, at the end or in vain."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._position <= after and self._rumors == rumors and not self._closed:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return self._position > after

    def _wake(self) -> None:
        # Everybody who waits holds the old event; who comes later looks at the state first.
        self._changed.set()
        self._changed = asyncio.Event()


class LogReader:
    """The store as all tails together read it: few at a time, for conversations come first, and once for all.

    What was committed last is read once and kept, within a bound, for every tail that has come so far: a commit costs
    one query however many follow. A tail that is further back reads pages of its own.
    """

    def __init__(self, store: EventStore, signal: LogSignal, *, poll_s: float = POLL_S) -> None:
        self.signal = signal
        self.poll_s = poll_s
        self._store = store
        self._reads = asyncio.Semaphore(READS_MAX)
        self._looking = asyncio.Lock()
        self._looked_at_s = -inf
        self._looked_after = 0
        self._catching_up = asyncio.Lock()
        self._recent: deque[LogEntry] = deque()
        self._recent_bytes = 0
        self._end = 0

    async def query(self, event_filter: EventFilter, *, after: int, limit: int = PAGE) -> Sequence[LogEntry]:
        """See ``EventStore.query``."""
        async with self._reads:
            return await self._store.query(event_filter, after_position=after, limit=limit)

    async def recent(self, after: int, known: int) -> Sequence[LogEntry]:
        """The events that follow ``after``, at most ``PAGE``; none where that is too far back for what is kept.

        ``known`` is a position above ``after`` that is committed.
        """
        if known - after > PAGE:
            return ()
        if self._end < known:
            async with self._catching_up:
                await self._catch_up(known)
        begin = after - (self._end - len(self._recent))
        return tuple(islice(self._recent, begin, begin + PAGE)) if begin >= 0 else ()

    async def look(self) -> None:
        """Tell the signal where the log stands, unless somebody did since the last rumor and a moment ago."""
        async with self._looking:
            now_s = asyncio.get_running_loop().time()
            if self._looked_after == self.signal.rumors and now_s - self._looked_at_s < self.poll_s / 2:
                return
            self._looked_at_s, self._looked_after = now_s, self.signal.rumors
            self.signal.notify((await self._store.head()).size)

    async def _catch_up(self, known: int) -> None:
        """Have what lies up to ``known``, within the bounds; positions have no gaps, so neither has what is kept."""
        if self._end >= known:
            return
        if known - self._end > PAGE:
            self._recent.clear()
            self._recent_bytes, self._end = 0, known - PAGE
        page = await self.query(EventFilter(max_position=known), after=self._end)
        self._recent.extend(page)
        self._recent_bytes += sum(map(_size_bytes, page))
        self._end = known
        while len(self._recent) > RECENT_MAX or (self._recent_bytes > RECENT_BYTES_MAX and len(self._recent) > 1):
            self._recent_bytes -= _size_bytes(self._recent.popleft())


def _size_bytes(entry: LogEntry) -> int:
    return HEADER_BYTES + len(entry.payload or b"")
