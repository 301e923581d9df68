"""Bringing a database to today's schema with Alembic, before anything is served from it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from manent import migrations
from manent.adapters.store.database import Database, database_name
from manent.adapters.store.postgres_link import DRIVER_ERRORS, reason
from manent.adapters.store.sqlite_address import sqlite_address
from manent.domain.errors import StoreUnavailable

BUSY_WAIT_S = 5.0
CONNECT_S = 5.0

T = TypeVar("T")


class MigrationError(Exception):
    """The database could not be brought to today's schema; the message says why and what to do."""


def upgrade(database: Database) -> None:
    """Create or upgrade the SQLite database of a path, or upgrade the PostgreSQL database of a URL.

    Raises:
        MigrationError: the folder or file cannot be written, is no database, is locked, or is newer than this Manent;
            PostgreSQL does not answer or refuses.
    """
    if isinstance(database, Path):
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MigrationError(
                f"the folder {database.parent} cannot be made: {error.strerror}; set MANENT_HOME"
            ) from error
    try:
        _run(database, _upgrade)
    except DBAPIError as error:
        raise MigrationError(
            f"the database {database_name(database)} cannot be opened or changed: {error.orig}; check that it is "
            "Manent's, that its folder is writable and its disk not full, and that no other program holds a lock on it"
        ) from error
    except CommandError as error:
        raise MigrationError(
            f"{database_name(database)} was made by a newer Manent ({error}); upgrade Manent to use it"
        ) from error


def current_revision(database: Database) -> str | None:
    """The revision of the database; None where there is no database, or nothing in it, yet.

    Raises:
        MigrationError: it cannot be read.
    """
    if isinstance(database, Path) and not database.exists():
        return None
    try:
        return _run(database, lambda connection: MigrationContext.configure(connection).get_current_revision())
    except DBAPIError as error:
        raise MigrationError(f"the database {database_name(database)} cannot be read: {error.orig}") from error
    except StoreUnavailable as error:
        raise MigrationError(error.message) from error


def latest_revision() -> str | None:
    """The revision that this Manent works with."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    logging.getLogger("alembic").setLevel(logging.WARNING)
    command.upgrade(config, "head")
    connection.commit()


def _run(database: Database, work: Callable[[Connection], T]) -> T:
    if isinstance(database, Path):
        engine = create_engine(f"sqlite:///{database}", creator=partial(_connect, database))
        try:
            with engine.connect() as connection:
                return work(connection)
        finally:
            engine.dispose()
    # A thread of its own: asyncpg needs an event loop, and the caller may be in one.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="migrate") as thread:
        return thread.submit(asyncio.run, _run_postgresql(database, work)).result()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(sqlite_address(path), uri=True, timeout=BUSY_WAIT_S)


async def _run_postgresql(url: URL, work: Callable[[Connection], T]) -> T:
    engine = create_async_engine(url, poolclass=NullPool, connect_args={"timeout": CONNECT_S})
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(work)
    except SQLAlchemyError:
        raise
    except DRIVER_ERRORS as error:
        raise MigrationError(
            f"the database {database_name(url)} does not answer: {reason(error)}; check MANENT_DATABASE_URL, and that "
            "PostgreSQL runs there"
        ) from error
    finally:
        await engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
