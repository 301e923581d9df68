"""What every store of subscriptions promises: one holder at a time, growing tokens, and no write by a stale one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from manent.adapters.store.sqlite import subscription_engine
from manent.adapters.store.subscriptions import MemorySubscriptionStore, SQLSubscriptionStore
from manent.domain.errors import InvalidValue, LeaseLost
from manent.domain.subscriptions import HeldBy, Lease
from tests.support.database import empty_database
from tests.support.fakes import FakeClock

Store = MemorySubscriptionStore | SQLSubscriptionStore


@pytest.fixture
def clock() -> FakeClock:
    """The stores' clock."""
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncGenerator[Store, None]:
    """One of the stores, empty."""
    if request.param == "memory":
        yield MemorySubscriptionStore(clock=clock)
        return
    if request.param == "postgres":
        engine = create_async_engine(request.getfixturevalue("postgres_url"))
    else:
        empty_database(tmp_path / "manent.db")
        engine = subscription_engine(tmp_path / "manent.db")
    yield SQLSubscriptionStore(engine, clock=clock)
    await engine.dispose()


async def acquired(store: Store, owner: str, name: str = "cache") -> Lease:
    """A lease of ten seconds, which is free."""
    lease = await store.acquire(name, owner=owner, ttl_s=10)
    assert isinstance(lease, Lease)
    return lease


async def test_a_lease_is_held_against_everybody(store: Store, clock: FakeClock) -> None:
    """Who comes second learns who holds it and until when; another subscription is free."""
    lease = await acquired(store, "w1")
    assert (lease.token, lease.position, lease.expires_at_us) == (1, 0, clock.now_us() + 10_000_000)
    for owner in ("w2", "w1"):
        held = await store.acquire("cache", owner=owner, ttl_s=10)
        assert held == HeldBy(owner="w1", expires_at_us=lease.expires_at_us)
    assert (await acquired(store, "w2", "other")).token == 1


async def test_one_of_many_wins(store: Store) -> None:
    """However many ask at once, one of them gets it."""
    found = await asyncio.gather(*(store.acquire("cache", owner=f"w{i}", ttl_s=10) for i in range(20)))
    (lease,) = [one for one in found if isinstance(one, Lease)]
    assert {one.owner for one in found if isinstance(one, HeldBy)} == {lease.owner}


async def test_a_checkpoint_is_passed_on_with_a_growing_token(store: Store) -> None:
    """What one worker finished the next does not do again; each acquisition has a higher token."""
    first = await acquired(store, "w1")
    first = await store.advance(first, 7)
    assert (first.position, await store.position("cache")) == (7, 7)
    await store.release(first)
    second = await acquired(store, "w2")
    assert (second.token, second.position) == (2, 7)
    assert await store.position("nobody's") == 0


async def test_a_stale_worker_is_fenced_off(store: Store, clock: FakeClock) -> None:
    """Once the lease ran out and another took it, nothing of the first applies: no advance, no renewal, no release."""
    stale = await acquired(store, "w1")
    clock.advance(10)
    fresh = await acquired(store, "w2")
    for write in (store.advance(stale, 5), store.renew(stale)):
        with pytest.raises(LeaseLost, match="'w2' holds it now"):
            await write
    await store.release(stale)
    assert await store.position("cache") == 0
    assert isinstance(await store.acquire("cache", owner="w3", ttl_s=10), HeldBy)
    assert (await store.advance(fresh, 5)).position == 5


async def test_the_same_owner_is_fenced_by_its_token(store: Store, clock: FakeClock) -> None:
    """A worker that was started again under its name is another one: the token tells them apart."""
    stale = await acquired(store, "w1")
    clock.advance(11)
    await acquired(store, "w1")
    with pytest.raises(LeaseLost):
        await store.advance(stale, 5)


async def test_a_late_word_is_good_as_long_as_nobody_came(store: Store, clock: FakeClock) -> None:
    """A lease that ran out while nobody wanted it can still be used: nobody else processed anything."""
    lease = await acquired(store, "w1")
    clock.advance(60)
    lease = await store.advance(lease, 3)
    assert lease.expires_at_us == clock.now_us() + 10_000_000
    assert isinstance(await store.acquire("cache", owner="w2", ttl_s=10), HeldBy)


async def test_renewing_and_advancing_extend_the_lease(store: Store, clock: FakeClock) -> None:
    """Each word of the holder counts from when it was said."""
    lease = await acquired(store, "w1")
    for position in (1, 2, 3):
        clock.advance(6)
        lease = await store.renew(lease)
        clock.advance(6)
        lease = await store.advance(lease, position)
    assert isinstance(await store.acquire("cache", owner="w2", ttl_s=10), HeldBy)


async def test_a_released_lease_writes_nothing(store: Store) -> None:
    """After a release the old lease is stale at once."""
    lease = await acquired(store, "w1")
    await store.release(lease)
    await store.release(lease)
    with pytest.raises(LeaseLost, match="released"):
        await store.advance(lease, 1)


async def test_a_checkpoint_does_not_go_back(store: Store) -> None:
    """A worker that counts wrongly is told; the checkpoint stands."""
    lease = await store.advance(await acquired(store, "w1"), 5)
    with pytest.raises(InvalidValue, match="position 5 already"):
        await store.advance(lease, 4)
    assert await store.position("cache") == 5


async def test_subscriptions_are_found_by_how_their_names_begin(store: Store) -> None:
    """In their order; what has a meaning in patterns has none here."""
    for name in ("webhook/b/t", "webhook/a/t_1", "webhook/a/tx1", "contexts"):
        await acquired(store, "w1", name)
    assert list(await store.names("webhook/")) == ["webhook/a/t_1", "webhook/a/tx1", "webhook/b/t"]
    assert list(await store.names("webhook/a/t_")) == ["webhook/a/t_1"]
    assert list(await store.names("%")) == []
