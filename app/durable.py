"""Files and folders that are there whole or not at all, also after the power failed or the process was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from manent.adapters.inference.durable import write_through


@contextmanager
def work_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A hidden folder in ``parent`` to prepare something in, gone at the end.

    What a killed process left there is removed by the next that works there: a folder in use is locked.

    Raises:
        OSError: it cannot be made.
    """
    for left in parent.glob(f"{prefix}*"):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def put_in_place(made: Path, target: Path) -> None:
    """Give a finished file its name, on the disk for certain.

    Raises:
        OSError: it cannot be written through or renamed.
    """
    write_through(made)
    made.replace(target)
    write_through(target.parent)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder; OSError where another process has it."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(number)
