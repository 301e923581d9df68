"""How Alembic runs the migrations: on the connection it is given, or on ``sqlalchemy.url``."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from manent.adapters.store.schema import metadata

# Nodes that start together migrate one after another.
MIGRATION_LOCK = 0x6D616E656E74


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=False)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        context.run_migrations()


async def _migrate_postgresql(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(_migrate)
    await engine.dispose()


given: Connection | None = context.config.attributes.get("connection")
configured = context.config.get_main_option("sqlalchemy.url") or ""
if given is not None:
    _migrate(given)
elif configured.startswith("postgresql"):
    asyncio.run(_migrate_postgresql(configured))
else:
    engine = create_engine(configured.replace("sqlite+aiosqlite", "sqlite"))
    with engine.begin() as own:
        _migrate(own)
    engine.dispose()
