"""The log in bulk: all events that a filter asks for, as the log stood at one position, a page at a time.

For whoever has the database itself, so nobody's rights are asked. Rows are plain tuples: a million of them as objects
would take longer to make than to read. Pages are bounded in events and bytes, so that memory is flat.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from manent.domain.records import EventFilter, EventHeader

HEADER_COLUMNS = tuple(EventHeader.__dataclass_fields__)
COLUMNS = ("position", *(name for name in HEADER_COLUMNS if name != "position"), "salt", "payload")
"""Everything that the log has of an event; a row has the position first. Salt and payload are None once erased."""

Row = Sequence[Any]
Report = Callable[[int, int], None]


class BulkLog(Protocol):
    """The log for whoever reads much of it. Every method raises StoreUnavailable where the database does not answer."""

    async def last_position(self) -> int:
        """Where the log stands."""
        ...

    async def in_positions(self, wanted: EventFilter) -> EventFilter:
        """``wanted`` with its range of times as a range of positions."""
        ...

    async def page(self, wanted: EventFilter, columns: Sequence[str], *, after_position: int) -> Sequence[Row]:
        """The next matching events, in log order: at least one if there is one, and no more than memory should hold.

        ``columns`` are among ``COLUMNS``, the position first. The filter's times were made positions.
        """
        ...


class EventSink(Protocol):
    """Takes rows of its ``columns``, the position first, in log order."""

    columns: Sequence[str]

    async def write(self, rows: Sequence[Row]) -> None:
        """Take a page.

        Raises:
            LogCorrupt: a value is not of the kind that its column has.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a filter asks for, between two positions that do not move while the log grows."""

    log: BulkLog
    wanted: EventFilter
    log_position: int
    first: int
    last: int

    async def pages(self, columns: Sequence[str]) -> AsyncGenerator[Sequence[Row], None]:
        """The events, page by page, as rows of ``columns``."""
        after = self.first - 1
        while after < self.last and (rows := await self.log.page(self.wanted, columns, after_position=after)):
            yield rows
            after = rows[-1][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was exported: how many events, of the log as it stood at a position."""

    events: int
    log_position: int


class ExportEvents:
    """Reads the log for analysts, beside a server or without one."""

    def __init__(self, log: BulkLog) -> None:
        self._log = log

    async def select(self, wanted: EventFilter) -> Selection:
        """What ``wanted`` asks for of the log as it stands now. Events are only added: two readings are the same."""
        head = await self._log.last_position()
        # Times are looked up in the log as it stands: whatever is added later lies behind the head.
        narrowed = await self._log.in_positions(wanted)
        last = head if narrowed.max_position is None else min(head, narrowed.max_position)
        return Selection(
            log=self._log,
            log_position=head,
            wanted=replace(narrowed, since_us=None, until_us=None, max_position=last),
            first=narrowed.min_position or 1,
            last=last,
        )

    async def run(
        self, wanted: EventFilter, sink: EventSink, *, report: Report = lambda _done, _total: None
    ) -> Exported:
        """Give all that ``wanted`` asks for to ``sink``; ``report`` hears of positions passed, and of how many."""
        selection = await self.select(wanted)
        total = max(0, selection.last - selection.first + 1)
        events = 0
        report(0, total)
        async for rows in selection.pages(sink.columns):
            await sink.write(rows)
            events += len(rows)
            report(rows[-1][0] - selection.first + 1, total)
        report(total, total)
        return Exported(events=events, log_position=selection.log_position)
