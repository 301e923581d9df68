"""The database, opened for a command that reads it without a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from manent.adapters.store.bulk import SQLBulkLog
from manent.adapters.store.database import database_name, open_store
from manent.adapters.store.migrate import MigrationError, current_revision, latest_revision, upgrade
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.sql import SQLEventStore
from manent.app.cli.output import ExitCode, fail
from manent.app.home import HomeError, prepare_folder
from manent.app.settings import Settings
from manent.app.system import RandomIds, SystemClock
from manent.domain.errors import DomainError


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncGenerator[SQLEventStore, None]:
    """The database's store; one that is missing or of another version, and what the domain refuses, end the command."""
    check_revision(settings)
    store = open_store(settings.database, clock=SystemClock(), ids=RandomIds())
    try:
        with failing():
            yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def opened_bulk_log(settings: Settings) -> AsyncGenerator[SQLBulkLog, None]:
    """The database's log for whoever reads much of it; it ends the command as ``opened_store`` does."""
    check_revision(settings)
    rows = open_rows(settings.database, strict=True)
    try:
        with failing():
            yield SQLBulkLog(rows)
    finally:
        await rows.aclose()


@contextmanager
def failing() -> Generator[None, None, None]:
    """What the domain refuses ends the command."""
    try:
        yield
    except DomainError as error:
        fail(error.message, ExitCode.USAGE if error.code == "invalid_value" else ExitCode.NO)


def bring_up_to_date(settings: Settings) -> None:
    """Make the database, or bring it to this version's schema; what keeps it from that ends the command."""
    try:
        if isinstance(settings.database, Path):
            prepare_folder(settings.database.parent)
        upgrade(settings.database)
    except (MigrationError, HomeError) as error:
        fail(str(error))


def check_revision(settings: Settings) -> None:
    """End the command where the database is missing, or of another version."""
    name = database_name(settings.database)
    try:
        current = current_revision(settings.database)
        if current is None:
            fail(f"there is no database at {name} yet; `manent serve` makes it, and MANENT_HOME says where")
        if current != latest_revision():
            fail(f"{name} is at revision {current}, not {latest_revision()}; run `manent db upgrade`")
    except MigrationError as error:
        fail(str(error))
