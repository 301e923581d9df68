"""Workers of a subscription: in order, one at a time, again after a failure, and out of the way when they are stale."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log, subscription_engine
from manent.adapters.store.subscriptions import SQLSubscriptionStore
from manent.domain.errors import StoreUnavailable
from manent.domain.records import EventContext, EventFilter, LogEntry
from manent.domain.subscriptions import HeldBy, Lease
from manent.domain.usecases.log_reader import LogReader, LogSignal
from manent.domain.usecases.subscriptions import (
    Handler,
    SubscriptionLimits,
    SubscriptionStalled,
    run_subscription,
)
from tests.support.conversation import said, started
from tests.support.database import empty_database
from tests.support.fakes import CountingIds, FakeClock

ANN = EventContext(tenant="acme", actor="ann")
WAIT_S = 5.0
NAME = "cache"


class StandingClock(FakeClock):
    """A clock that moves only when it is told to; who sleeps on it lets others run."""

    async def sleep(self, seconds: float) -> None:
        """See ``Clock.sleep``."""
        self.slept_s.append(seconds)
        await asyncio.sleep(0.001)


@dataclass(kw_only=True)
class World:
    """A log, its subscriptions, and the workers that a test started."""

    clock: StandingClock
    events: SQLiteEventStore
    subscriptions: SQLSubscriptionStore
    reader: LogReader
    appended: int = 0
    workers: list[asyncio.Task[None]] = field(default_factory=list)

    async def append(self, count: int) -> None:
        """Append so many events."""
        for _ in range(count):
            event = started() if self.appended == 0 else said("user", str(self.appended))
            await self.events.append("session-a", [event], expected_version=self.appended, context=ANN)
            self.appended += 1

    def work(self, owner: str, handler: Handler, **options: Any) -> asyncio.Task[None]:
        """Start a worker."""
        running = run_subscription(
            NAME,
            handler,
            reader=self.reader,
            subscriptions=self.subscriptions,
            clock=self.clock,
            owner=owner,
            **{"limits": SubscriptionLimits(ttl_s=10), **options},
        )
        self.workers.append(asyncio.create_task(running, name=owner))
        return self.workers[-1]

    async def checkpoint_is(self, position: int) -> None:
        """Return once the checkpoint stands there."""
        async with asyncio.timeout(WAIT_S):
            while await self.subscriptions.position(NAME) != position:  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0.005)


class Notes:
    """A handler that writes down what it is given, and for whom."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    async def __call__(self, page: Sequence[LogEntry], lease: Lease) -> None:
        """See ``Handler``."""
        self.seen += [(lease.owner, entry.header.position) for entry in page]

    @property
    def positions(self) -> list[int]:
        """What was processed, in order."""
        return [position for _, position in self.seen]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World, None]:
    """An empty log on disk."""
    async with a_world(tmp_path / "manent.db") as made:
        yield made


@asynccontextmanager
async def a_world(path: Path) -> AsyncGenerator[World, None]:
    """A world on a database; every worker is ended with it."""
    clock, ids = StandingClock(), CountingIds()
    empty_database(path)
    await ensure_log(path, ids)
    events, engine, signal = SQLiteEventStore(path, clock=clock, ids=ids), subscription_engine(path), LogSignal()
    events.observe(signal.notify)
    world = World(
        clock=clock,
        events=events,
        subscriptions=SQLSubscriptionStore(engine, clock=clock),
        reader=LogReader(events, signal, poll_s=0.05),
    )
    try:
        yield world
    finally:
        for worker in world.workers:
            worker.cancel()
            with suppress(asyncio.CancelledError, SubscriptionStalled):
                await worker
        await events.aclose()
        await engine.dispose()


async def test_events_are_processed_once_across_restarts(world: World) -> None:
    """A worker begins at the checkpoint, and one that is cancelled gives its lease to the next at once."""
    notes = Notes()
    await world.append(3)
    first = world.work("w1", notes)
    await world.checkpoint_is(3)
    await world.append(2)
    await world.checkpoint_is(5)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await world.append(1)
    world.work("w2", notes)
    await world.checkpoint_is(6)
    assert notes.seen == [*(("w1", position) for position in range(1, 6)), ("w2", 6)]


async def test_two_workers_never_process_at_once(world: World) -> None:
    """Three workers, pages in between, takeovers by cancellation: no two handlers overlap, no event is done twice."""
    notes, inside = Notes(), 0

    async def exclusive(page: Sequence[LogEntry], lease: Lease) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        await asyncio.sleep(0.002)
        await notes(page, lease)
        inside -= 1

    for owner in ("w1", "w2", "w3"):
        world.work(owner, exclusive)
    for number in range(3):
        await world.append(20)
        await world.checkpoint_is(20 * (number + 1))
        holder = notes.seen[-1][0]
        next(worker for worker in world.workers if worker.get_name() == holder).cancel()
    assert notes.positions == list(range(1, 61))
    assert len({owner for owner, _ in notes.seen}) == 3


async def test_a_worker_that_slept_through_its_lease_is_fenced_off(world: World) -> None:
    """What it did late is not recorded: the other's checkpoint stands, and the stale one stands by from then on."""
    notes, entered, go_on = Notes(), asyncio.Event(), asyncio.Event()

    async def slow(page: Sequence[LogEntry], lease: Lease) -> None:
        if lease.owner == "w1" and lease.token == 1:
            entered.set()
            await go_on.wait()
        await notes(page, lease)

    await world.append(2)
    stale = world.work("w1", slow)
    await asyncio.wait_for(entered.wait(), WAIT_S)
    world.clock.advance(11)
    world.work("w2", slow)
    await world.checkpoint_is(2)
    await world.append(1)
    await world.checkpoint_is(3)
    go_on.set()
    await asyncio.sleep(0.05)
    await world.append(1)
    await world.checkpoint_is(4)
    assert not stale.done()
    assert [position for owner, position in notes.seen if owner == "w2"] == [1, 2, 3, 4]
    assert [position for owner, position in notes.seen if owner == "w1"] == [1, 2]
    held = await world.subscriptions.acquire(NAME, owner="w3", ttl_s=10)
    assert isinstance(held, HeldBy)
    assert held.owner == "w2"


async def test_a_failing_handler_is_tried_again_and_then_told(world: World) -> None:
    """Failures wait longer each time and are bounded; the checkpoint stands before it, the lease is free."""
    attempts = 0

    async def failing(page: Sequence[LogEntry], lease: Lease) -> None:
        nonlocal attempts
        attempts += 1
        if page[-1].header.position > 1 and attempts != 4:
            raise ValueError(lease.owner)

    await world.append(1)
    worker = world.work("w1", failing, limits=SubscriptionLimits(ttl_s=10, attempts_max=4, retry_s=0.5))
    await world.checkpoint_is(1)
    await world.append(1)
    await world.checkpoint_is(2)
    assert (attempts, world.clock.slept_s) == (4, [0.5, 1.0])
    await world.append(1)
    with pytest.raises(SubscriptionStalled, match="failed 4 times at positions 3 to 3: ValueError"):
        await asyncio.wait_for(worker, WAIT_S)
    assert world.clock.slept_s == [0.5, 1.0, 0.5, 1.0, 2.0]
    assert await world.subscriptions.position(NAME) == 2
    assert isinstance(await world.subscriptions.acquire(NAME, owner="w2", ttl_s=10), Lease)


async def test_a_handler_that_hangs_is_stopped_before_its_lease_ends(world: World) -> None:
    """No handler outlives its lease: it is cancelled, and counts as failed."""
    stopped = 0

    async def hanging(_: Sequence[LogEntry], __: Lease) -> None:
        nonlocal stopped
        try:
            await asyncio.Event().wait()
        finally:
            stopped += 1

    await world.append(1)
    worker = world.work("w1", hanging, limits=SubscriptionLimits(ttl_s=0.2, attempts_max=2))
    with pytest.raises(SubscriptionStalled, match="TimeoutError"):
        await asyncio.wait_for(worker, WAIT_S)
    assert stopped == 2


async def test_a_database_that_was_away_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it lasts, the worker comes back with the database and misses nothing."""
    notes, failures = Notes(), 0
    advance = SQLSubscriptionStore.advance

    async def away(self: SQLSubscriptionStore, lease: Lease, position: int) -> Lease:
        nonlocal failures
        if failures < 20:
            failures += 1
            raise StoreUnavailable("the database is away")
        return await advance(self, lease, position)

    monkeypatch.setattr(SQLSubscriptionStore, "advance", away)
    await world.append(2)
    world.work("w1", notes)
    await world.checkpoint_is(2)
    assert world.clock.slept_s[:4] == [0.5, 1.0, 2.0, 10 / 3]
    assert max(world.clock.slept_s) == 10 / 3
    assert notes.positions == [1, 2] * 21


async def test_only_what_matches_is_processed_and_the_end_of_the_log_ends_the_worker(world: World) -> None:
    """A subscription has the filters of the log; when the server drains, the worker returns and its lease is free."""
    notes = Notes()
    worker = world.work("w1", notes, event_filter=EventFilter(type="SessionStarted"))
    await world.append(3)
    await world.checkpoint_is(1)
    world.reader.signal.close()
    await asyncio.wait_for(worker, WAIT_S)
    assert notes.positions == [1]
    assert isinstance(await world.subscriptions.acquire(NAME, owner="w2", ttl_s=10), Lease)
