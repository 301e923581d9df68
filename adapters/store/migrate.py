"""Bringing a database to today's schema with Alembic, before anything is served from it."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError

from manent import migrations

BUSY_WAIT_S = 5.0


class MigrationError(Exception):
    """The database could not be brought to today's schema; the message says why and what to do."""


def upgrade(path: Path) -> None:
    """Create or upgrade the SQLite database at ``path``.

    Raises:
        MigrationError: the folder or file cannot be written, is no database, is locked, or is newer than this Manent.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MigrationError(f"the folder {path.parent} cannot be made: {error.strerror}; set MANENT_HOME") from error
    engine = _engine(path)
    try:
        with engine.connect() as connection:
            config = _config()
            config.attributes["connection"] = connection
            logging.getLogger("alembic").setLevel(logging.WARNING)
            command.upgrade(config, "head")
            connection.commit()
    except DBAPIError as error:
        raise MigrationError(
            f"the database {path} cannot be opened or changed: {error.orig}; check that it is Manent's, that its "
            "folder is writable and its disk not full, and that no other program holds a lock on it"
        ) from error
    except CommandError as error:
        raise MigrationError(f"{path} was made by a newer Manent ({error}); upgrade Manent to use it") from error
    finally:
        engine.dispose()


def current_revision(path: Path) -> str | None:
    """The revision of the database at ``path``; None where there is no database yet."""
    if not path.exists():
        return None
    engine = _engine(path)
    try:
        with closing(engine.connect()) as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise MigrationError(f"the database {path} cannot be read: {error.orig}") from error
    finally:
        engine.dispose()


def latest_revision() -> str | None:
    """The revision that this Manent works with."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


def _engine(path: Path) -> Engine:
    return create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_WAIT_S})
