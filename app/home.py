"""The data folder: made when it is missing, and used by one server at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manent.app.settings import Settings


class HomeError(Exception):
    """The data folder cannot be used; the message says why and what to do."""


def prepare_folder(folder: Path) -> None:
    """Make ``folder``, readable by its owner only, and see that files can be written in it.

    Raises:
        HomeError: it cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.write_bytes(b"a full disk takes the name of a file, but not its bytes")
        probe.unlink()
    except OSError as error:
        raise HomeError(
            f"the data folder {folder} cannot be written ({error.strerror}); give yourself the right, or set "
            "MANENT_HOME to a folder of yours"
        ) from error


def data_folders(settings: Settings) -> list[Path]:
    """Where data is written: the home, and the folder of a SQLite database that is elsewhere."""
    return [settings.home, *([settings.database.parent] if isinstance(settings.database, Path) else [])]


@contextmanager
def only_server(database: Path) -> Iterator[None]:
    """Hold the one place of a server on ``database``; it is given back when the process ends, however it ends.

    Raises:
        HomeError: another server has it.
    """
    lock_file = database.with_name(database.name + ".lock")
    try:
        lock = lock_file.open("a+")
    except OSError as error:
        raise HomeError(f"{lock_file} cannot be made ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise HomeError(
                f"another Manent server (process {owner}) uses {database}; stop it, or set another MANENT_HOME"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
