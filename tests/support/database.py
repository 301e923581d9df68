"""A SQLite database with today's schema: migrated once per process, and copied for each test that wants one."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from manent.adapters.store.migrate import upgrade


def empty_database(path: Path) -> Path:
    """Make at ``path`` what ``upgrade`` makes of nothing; the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_migrated())
    return path


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory(prefix="manent-schema-") as folder:
        path = Path(folder) / "manent.db"
        upgrade(path)
        return path.read_bytes()
