"""Tails on a log in memory: what they share is bounded and right, whatever their filters and wherever they begin."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from manent.adapters.store.memory import MemoryEventStore
from manent.domain.access import Principal, Scope
from manent.domain.records import EventContext, EventFilter, LogEntry
from manent.domain.usecases.follow_log import FollowLog
from manent.domain.usecases.log_reader import PAGE, RECENT_BYTES_MAX, RECENT_MAX, LogReader, LogSignal
from tests.support.conversation import requested, said, started
from tests.support.fakes import CountingIds, FakeClock

AUDITOR = Principal(tenant="acme", subject="auditor", scopes=frozenset({Scope.AUDIT}))
NOW_US = FakeClock().now_us()
FILTERS = [
    EventFilter(),
    EventFilter(stream_id="session-1"),
    EventFilter(type="SessionStarted"),
    EventFilter(actor="a1"),
    EventFilter(request_id="r2"),
    EventFilter(correlation_id="k2"),
    EventFilter(model_id="m"),
    EventFilter(since_us=NOW_US + 100_000_000),
    EventFilter(until_us=NOW_US + 100_000_000),
    EventFilter(min_position=150, max_position=250),
    EventFilter(actor="a0", type="CompletionRequested", model_id="m"),
]


class CountingStore(MemoryEventStore):
    """A store that counts its pages."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.queries = 0

    async def query(
        self, event_filter: EventFilter, *, after_position: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[LogEntry]:
        """See ``EventStore.query``."""
        self.queries += 1
        return await super().query(event_filter, after_position=after_position, limit=limit, newest_first=newest_first)


class Log:
    """A log of three streams in two tenants, one second between appends, and how it is followed."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = CountingStore(clock=self.clock, ids=CountingIds())
        self.signal = LogSignal()
        self.store.observe(self.signal.notify)
        self.follow = FollowLog(self.store, self.signal, poll_s=0.05)

    async def append(self, number: int) -> None:
        """Append one event; which, its number decides."""
        which = number % 3
        context = EventContext(
            tenant="rival" if number % 7 == 0 else "acme",
            actor=f"a{number % 2}",
            request_id=f"r{number % 5}",
            correlation_id=f"k{number % 4}",
        )
        stream = f"session-{which}{'' if context.tenant == 'acme' else '-theirs'}"
        version = len(await self.store.read_stream(context.tenant, stream, limit=1000))
        event = (started(), said("user", "x"), requested(f"c{number}"))[number % 11 % 3]
        await self.store.append(stream, [event], expected_version=version, context=context)
        self.clock.advance(1)


async def follow(log: Log, event_filter: EventFilter, after: int, last: int) -> list[int]:
    """The positions that a tail yields until it has looked at everything up to ``last``."""
    found: list[int] = []
    async with log.follow.tail(AUDITOR, event_filter, after_position=after) as tail:
        while tail.position < last:
            page = await tail.next(0.05)
            if page is None:
                break
            found += [entry.header.position for entry in page]
    return found


@pytest.mark.parametrize("after", [0, 90, 199, 250])
async def test_a_tail_finds_what_a_query_finds(after: int) -> None:
    """For every filter, from far back, from near, and from beyond the head, while the log grows."""
    log = Log()
    for number in range(200):
        await log.append(number)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tails = [group.create_task(follow(log, event_filter, after, 300)) for event_filter in FILTERS]
        for number in range(200, 300):
            await log.append(number)
            await asyncio.sleep(0)
    for event_filter, tail in zip(FILTERS, tails, strict=True):
        own = replace(event_filter, tenant="acme")
        expected = await log.store.query(own, after_position=after, limit=1000)
        assert tail.result() == [entry.header.position for entry in expected], event_filter


async def test_a_commit_costs_one_query_however_many_follow() -> None:
    """Twenty tails at the end of the log share what is read of it."""
    log = Log()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tails = [group.create_task(follow(log, EventFilter(), 0, 50)) for _ in range(20)]
        await asyncio.sleep(0.02)
        log.store.queries = 0
        for number in range(50):
            await log.append(number)
            await asyncio.sleep(0.002)
    assert {len(tail.result()) for tail in tails} == {50 - 8}
    assert log.store.queries <= 60


async def test_what_is_shared_is_bounded() -> None:
    """By events and by bytes: what does not fit is read by each tail for itself."""
    log = Log()
    reader = LogReader(log.store, log.signal)
    for number in range(RECENT_MAX + 100):
        await log.append(number)
        assert await reader.recent(number, number + 1)
    assert len(reader._recent) == RECENT_MAX
    assert await reader.recent(0, RECENT_MAX + 100) == ()
    context = EventContext(tenant="acme", actor="a")
    for version in range(20):
        large = said("user", "x" * 1_000_000)
        known = (await log.store.append("session-large", [large], expected_version=version, context=context)).position
        assert len(await reader.recent(known - 1, known)) == 1
    assert reader._recent_bytes <= RECENT_BYTES_MAX
    assert reader._recent_bytes == sum(1024 + len(entry.payload or b"") for entry in reader._recent)
    assert await reader.recent(known - 10, known) == ()
    assert PAGE < RECENT_MAX


def test_a_signal_that_is_late_or_repeated_moves_nothing_backwards() -> None:
    """Commits are heard of in any order; what is known only grows, and a rumor says nothing of a position."""
    signal = LogSignal()
    known = []
    for position in (3, 1, 3, None, 5, 4):
        signal.notify(position)
        known.append(signal.position)
    assert (known, signal.rumors) == ([3, 3, 3, 3, 5, 5], 1)
