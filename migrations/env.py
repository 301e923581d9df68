"""How Alembic runs the migrations: on the connection it is given, or on ``sqlalchemy.url``."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection

from manent.adapters.store.schema import metadata


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=False)
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    url = context.config.get_main_option("sqlalchemy.url") or ""
    engine = create_engine(url.replace("sqlite+aiosqlite", "sqlite"))
    with engine.begin() as own:
        _migrate(own)
    engine.dispose()
