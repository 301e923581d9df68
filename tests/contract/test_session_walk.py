"""The log session by session, on both databases: everything once, in order, in pages of any size."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL

from manent.adapters.store.database import open_node, open_subscription_engine
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.session_walk import SQLSessionWalk
from manent.adapters.store.sql import SQLEventStore
from manent.adapters.store.subscriptions import SQLSubscriptionStore
from manent.app.system import RandomIds, SystemClock
from manent.domain.events import DomainEvent
from manent.domain.records import EventContext
from manent.domain.short_events import SessionStep, in_short
from manent.domain.subscriptions import Lease
from tests.support.conversation import generated, requested, said, started


@dataclass
class World:
    """A log, and the walk over it."""

    store: SQLEventStore
    walk: SQLSessionWalk
    database: Path | URL


@pytest.fixture
async def world(database: Path | URL) -> AsyncGenerator[World, None]:
    """An empty log on each database."""
    store = await open_node(database, clock=SystemClock(), ids=RandomIds())
    rows = open_rows(database, strict=True)
    yield World(store, SQLSessionWalk(rows), database)
    await rows.aclose()
    await store.aclose()


@pytest.mark.parametrize("page_events", [1, 3, 4096])
async def test_every_event_of_a_session_comes_once_and_in_order(
    world: World, monkeypatch: pytest.MonkeyPatch, page_events: int
) -> None:
    """Sessions that were written in turns, of tenants of any name, and no completion without a session."""
    monkeypatch.setattr("manent.adapters.store.session_walk.PAGE_EVENTS", page_events)
    expected: dict[tuple[str, str], list[SessionStep]] = {}
    for version in range(5):
        for tenant, session_id in (("acme", "s"), ("acme", "S"), ("Ähre", "s-2"), ("acme", "s:1")):
            turn: list[DomainEvent] = [
                said("user", "a"),
                requested(session_id),
                generated("b", session_id),
                said("assistant", "b"),
            ]
            event = [started(), *turn][version]
            context = EventContext(tenant=tenant, actor="ann")
            await world.store.append(f"session-{session_id}", [event], expected_version=version, context=context)
            expected.setdefault((tenant, session_id), []).append(in_short(event))
    alone: list[DomainEvent] = [requested("c9"), generated("ok", "c9")]
    await world.store.append("completion-c9", alone, expected_version=0, context=EventContext(tenant="acme", actor="a"))
    found: dict[tuple[str, str], list[SessionStep]] = {}
    async for page in world.walk.pages():
        for steps in page:
            found.setdefault(steps.session, []).extend(steps.events)
            (last,) = await world.store.read_events(
                steps.session[0], f"session-{steps.session[1]}", after_version=steps.last_version - 1, limit=1
            )
            assert (last.event_id, last.event, len(found[steps.session])) == (
                steps.last_event_id,
                steps.events[-1],
                steps.last_version,
            )
    assert found == expected
    assert await world.walk.events() == 22


async def test_a_checkpoint_is_kept_beside_the_log(world: World) -> None:
    """The engine that the projector's subscription uses works on each database."""
    engine = open_subscription_engine(world.database)
    subscriptions = SQLSubscriptionStore(engine, clock=SystemClock())
    lease = await subscriptions.acquire("contexts", owner="node", ttl_s=5)
    assert isinstance(lease, Lease)
    await subscriptions.advance(lease, 7)
    assert await subscriptions.position("contexts") == 7
    await engine.dispose()
