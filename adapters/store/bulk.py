"""The log in bulk, straight from the driver's tuples: the filters of its pages, and only the columns asked for."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.store.event_query import in_positions
from manent.adapters.store.page_text import page_text, positions_text
from manent.adapters.store.rows import Rows
from manent.domain.errors import LogCorrupt
from manent.domain.records import EventFilter
from manent.domain.usecases.export_events import Row

PAGE_EVENTS = 4096
PAGE_BYTES = 4 * 1024 * 1024


class SQLBulkLog:
    """Implements ``BulkLog`` on a database."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def last_position(self) -> int:
        """See ``BulkLog.last_position``."""
        for (position,) in await self._rows.fetch("SELECT position FROM log_head WHERE id = 1"):
            if isinstance(position, int):
                return position
        raise LogCorrupt("the log has no head; `manent log verify` says more")

    async def in_positions(self, wanted: EventFilter) -> EventFilter:
        """See ``BulkLog.in_positions``."""
        look_up = positions_text(self._rows.dialect, wanted)
        if look_up is None:
            return wanted
        statement, values = look_up
        ((begin, later),) = await self._rows.fetch(statement, *values)
        return in_positions(wanted, begin, later)

    async def page(self, wanted: EventFilter, columns: Sequence[str], *, after_position: int) -> Sequence[Row]:
        """See ``BulkLog.page``."""
        statement, values = page_text(
            self._rows.dialect, wanted, after_position=after_position, limit=PAGE_EVENTS, columns=columns
        )
        if columns[-1] == "payload":
            return await self._rows.fetch_within(PAGE_BYTES, statement, *values)
        return await self._rows.fetch(statement, *values)
