"""Which database: a SQLite file, or the URL of PostgreSQL; and its event store."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from manent.adapters.store.postgres import PostgresEventStore, ensure_postgres_log, postgres_subscription_engine
from manent.adapters.store.sql import SQLEventStore
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log, subscription_engine
from manent.domain.errors import StoreUnavailable
from manent.domain.ports import Clock, Ids

Database = Path | URL


def database_name(database: Database) -> str:
    """The database in words, without its password."""
    return str(database) if isinstance(database, Path) else database.render_as_string(hide_password=True)


def open_store(database: Database, *, clock: Clock, ids: Ids) -> SQLEventStore:
    """A store that reads and appends; it is no node, and other nodes do not wait for what it opens."""
    if isinstance(database, Path):
        return SQLiteEventStore(database, clock=clock, ids=ids)
    return PostgresEventStore(database, clock=clock, ids=ids)


def open_subscription_engine(database: Database) -> AsyncEngine:
    """What a ``SQLSubscriptionStore`` works with; whoever opens it disposes of it."""
    return subscription_engine(database) if isinstance(database, Path) else postgres_subscription_engine(database)


async def ensure_any_log(database: Database, ids: Ids) -> None:
    """Begin a log if there is none yet.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    await (ensure_log(database, ids) if isinstance(database, Path) else ensure_postgres_log(database, ids))


async def open_node(database: Database, *, clock: Clock, ids: Ids) -> SQLEventStore:
    """A server's store, over a log that is made if there is none; on PostgreSQL the others see that it lives.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    await ensure_any_log(database, ids)
    if isinstance(database, Path):
        return SQLiteEventStore(database, clock=clock, ids=ids)
    node_id = int.from_bytes(ids.salt()[:8], "big") >> 1
    store = PostgresEventStore(database, clock=clock, ids=ids, node_id=node_id)
    try:
        await store.start()
    except StoreUnavailable:
        await store.aclose()
        raise
    return store
