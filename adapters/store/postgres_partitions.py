"""Partitions made ahead of need, in the transactions that append."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from manent.adapters.store.postgres_link import Connection, reason

PARTITION_POSITIONS = 10_000_000
AHEAD_AGAIN_S = 5.0

_END = "SELECT coalesce(max(last_position), 0) FROM log_partitions"
_MAKE = "SELECT manent_make_partitions($1, $2)"
_SHORT_WAIT = "SET LOCAL lock_timeout = '100ms'"

_log = logging.getLogger("manent.store")


class PartitionsAhead:
    """Sees to it that the log has half a partition of ``size`` positions before it, whoever made the last one."""

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._end = 0
        self._after_s = 0.0

    def forget(self) -> None:
        """The connection is gone, and with it what its transaction may have made."""
        self._end = 0

    async def make(self, connection: Connection, last: int) -> None:
        """Have partitions for positions up to ``last``, and half of one ahead; called under the head's lock.

        Only a batch that needs a partition now fails with it; one that is made ahead may wait for a later batch.
        """
        wanted = last + self._size // 2
        if wanted <= self._end:
            return
        self._end = await connection.fetchval(_END)
        now_s = asyncio.get_running_loop().time()
        is_ahead = last <= self._end
        if wanted <= self._end or (is_ahead and now_s < self._after_s):
            return
        await connection.execute("SAVEPOINT partitions")
        try:
            if is_ahead:
                await connection.execute(_SHORT_WAIT)
            self._end = await connection.fetchval(_MAKE, wanted, self._size)
        except asyncpg.PostgresError as error:
            if not is_ahead:
                raise
            self._after_s = now_s + AHEAD_AGAIN_S
            _log.warning("the log's next partition has to wait: %s", reason(error))
            await connection.execute("ROLLBACK TO SAVEPOINT partitions")
