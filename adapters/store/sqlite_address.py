"""How a SQLite file is opened: as usual, or for reading alone where its folder cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

from manent.domain.errors import StoreUnavailable


def sqlite_address(path: Path) -> str:
    """The URI of the file, for ``sqlite3.connect(…, uri=True)``.

    A log in WAL mode needs two files beside it, also for reading. Where the folder cannot be written and they are not
    there, nobody writes the log either: it is read as it is (SQLite's ``immutable``). Where they are there, somebody
    may be writing, and the file alone is not the log: then it is only opened through them.

    Raises:
        StoreUnavailable: what was written last is in a file beside it that cannot be used here.
    """
    address = path.absolute().as_uri()
    if not path.exists() or os.access(path.parent, os.W_OK):
        return address
    log, index = (path.with_name(path.name + ending) for ending in ("-wal", "-shm"))
    if index.exists():
        return f"{address}?mode=ro"
    if log.exists() and log.stat().st_size > 0:
        raise StoreUnavailable(
            f"what was written last to {path} is in {log.name} beside it, which cannot be read in a folder that cannot "
            "be written; copy both files to a folder that can, or make the copy with SQLite's VACUUM INTO or .backup"
        )
    return f"{address}?mode=ro&immutable=1"
