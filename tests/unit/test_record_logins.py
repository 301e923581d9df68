"""Failed logins as events: few, whatever is tried, and none forgotten while the database is away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manent.adapters.store.memory import MemoryEventStore
from manent.domain.access_errors import InvalidCredential
from manent.domain.access_events import LoginFailed
from manent.domain.errors import StoreUnavailable
from manent.domain.records import Appended, EventFilter
from manent.domain.usecases.record_logins import TOLD_APART_MAX, RecordFailedLogins
from tests.support.fakes import CountingIds, FakeClock


class Away(MemoryEventStore):
    """A store that can be away."""

    is_away = False

    async def append(self, *parts: Any, **more: Any) -> Appended:
        """Append, or refuse after a moment."""
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("no database")
        return await super().append(*parts, **more)


@pytest.fixture
def clock() -> FakeClock:
    """The time."""
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Away:
    """A log."""
    return Away(clock=clock, ids=CountingIds())


@pytest.fixture
def failures(store: Away, clock: FakeClock) -> RecordFailedLogins:
    """What records there."""
    return RecordFailedLogins(store=store, clock=clock, ids=CountingIds())


async def recorded(store: Away) -> list[LoginFailed]:
    """The events of the log."""
    found = []
    for entry in await store.query(EventFilter(type="LoginFailed"), limit=1000):
        (record,) = await store.read_stream(entry.header.tenant, entry.header.stream_id)
        assert isinstance(record.event, LoginFailed)
        found.append(record.event)
    return found


async def test_many_addresses_fill_no_log(store: Away, failures: RecordFailedLogins) -> None:
    """So many are told apart; the others are one event, and the counts are right in all."""
    for number in range(1000):
        for _ in range(3):
            failures.note(InvalidCredential("there is no such API key"), address=f"10.0.{number // 250}.{number % 250}")
    await failures.record()
    found = await recorded(store)
    assert len(found) == TOLD_APART_MAX + 1
    assert sum(one.count for one in found) == 3000
    assert [one.address for one in found if one.count > 3] == [None]
    await failures.record()
    assert len(await recorded(store)) == len(found)


async def test_ipv6_networks_and_key_tenants(store: Away, failures: RecordFailedLogins) -> None:
    """An address of IPv6 counts as its network; a key's failures are its tenant's, from their first to their last."""
    for address in ("2001:db8::1", "2001:db8::2"):
        failures.note(InvalidCredential("revoked", known_as="key_1", tenant="acme"), address=address)
    await failures.record()
    (entry,) = await store.query(EventFilter(tenant="acme"))
    assert entry.header.actor == "key_1"
    (event,) = await recorded(store)
    assert (event.address, event.count) == ("2001:db8::/64", 2)


async def test_nothing_is_lost_while_the_database_is_away(store: Away, failures: RecordFailedLogins) -> None:
    """What cannot be recorded is kept, with what comes meanwhile, and what is left at the end is recorded then."""
    failures.note(InvalidCredential("no"), address="10.0.0.1")
    store.is_away = True
    recording = asyncio.create_task(failures.record())
    await asyncio.sleep(0)
    failures.note(InvalidCredential("no"), address="10.0.0.1")
    with pytest.raises(StoreUnavailable):
        await recording
    store.is_away = False
    keeping = asyncio.create_task(failures.keep_recording())
    await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.wait({keeping})
    assert [one.count for one in await recorded(store)] == [2]
