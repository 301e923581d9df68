"""Tables that are made again from the log, beside those that the commits kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlalchemy import URL

from manent.adapters.store.database import open_node, open_subscription_engine
from manent.adapters.store.session_rebuild import rebuild_session_index
from manent.domain.ports import EventStore
from tests.support.fakes import CountingIds, FakeClock

Use = Callable[[EventStore], Awaitable[None]]


async def check_rebuilt(database: Path | URL, fill: Use, check: Use) -> None:
    """Fill a store, make its tables again over the full ones, and check it."""
    store = await open_node(database, clock=FakeClock(), ids=CountingIds())
    engine = open_subscription_engine(database)
    try:
        await fill(store)
        await rebuild_session_index(engine)
        await check(store)
    finally:
        await engine.dispose()
        await store.aclose()
