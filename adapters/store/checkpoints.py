"""Where issued checkpoints are kept: a table beside the log, or memory."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.store.rows import Rows
from manent.domain.errors import LogCorrupt
from manent.domain.transparency import KeptCheckpoint

_KEEP = """
INSERT INTO checkpoints (size, issued_at_us, note)
SELECT * FROM (SELECT CAST(? AS BIGINT) AS size, CAST(? AS BIGINT) AS issued_at_us, CAST(? AS TEXT) AS note) AS issued
WHERE NOT EXISTS (SELECT 1 FROM checkpoints WHERE checkpoints.size = issued.size)
"""
_PAGE = "SELECT size, issued_at_us, note FROM checkpoints WHERE size > ? ORDER BY size LIMIT ?"


class SQLCheckpoints:
    """Implements ``CheckpointStore`` on a database."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def log_id(self) -> str:
        """See ``CheckpointStore.log_id``."""
        found = await self._rows.fetch("SELECT log_id FROM log_head")
        if len(found) != 1:
            raise LogCorrupt(f"the log has {len(found)} heads, not one")
        return str(found[0][0])

    async def keep(self, checkpoint: KeptCheckpoint) -> None:
        """See ``CheckpointStore.keep``."""
        await self._rows.fetch(_KEEP, checkpoint.size, checkpoint.issued_at_us, checkpoint.note)

    async def page(self, *, after_size: int, limit: int) -> Sequence[KeptCheckpoint]:
        """See ``CheckpointStore.page``."""
        found = await self._rows.fetch(_PAGE, after_size, limit)
        return [KeptCheckpoint(size=size, issued_at_us=issued_at_us, note=note) for size, issued_at_us, note in found]


class MemoryCheckpoints:
    """Implements ``CheckpointStore`` in memory, for tests and experiments."""

    def __init__(self, log_id: str) -> None:
        self._log_id = log_id
        self._kept: dict[int, KeptCheckpoint] = {}

    async def log_id(self) -> str:
        """See ``CheckpointStore.log_id``."""
        return self._log_id

    async def keep(self, checkpoint: KeptCheckpoint) -> None:
        """See ``CheckpointStore.keep``."""
        self._kept.setdefault(checkpoint.size, checkpoint)

    async def page(self, *, after_size: int, limit: int) -> Sequence[KeptCheckpoint]:
        """See ``CheckpointStore.page``."""
        return [self._kept[size] for size in sorted(self._kept) if size > after_size][:limit]
