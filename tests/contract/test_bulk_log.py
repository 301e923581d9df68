"""Reading in bulk on every database: the same events as the log's pages have, in pages that memory can hold."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from manent.adapters.store import bulk
from manent.adapters.store.bulk import SQLBulkLog
from manent.adapters.store.database import open_node
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.rows import Rows
from manent.domain.events import DomainEvent
from manent.domain.ports import EventStore
from manent.domain.records import EventContext, EventFilter
from manent.domain.usecases.export_events import COLUMNS, ExportEvents, Row
from tests.support.conversation import NOW_US, generated, requested, said, started
from tests.support.fakes import CountingIds, FakeClock

SESSIONS = 6


@dataclass
class Collected:
    """A sink that keeps what it is given."""

    columns: Sequence[str] = COLUMNS
    rows: list[Row] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)

    async def write(self, rows: Sequence[Row]) -> None:
        """See ``EventSink.write``."""
        self.rows += rows
        self.pages.append(len(rows))


@dataclass
class World:
    """A log of six sessions with five events each, one session a second, and ways to read it."""

    store: EventStore
    rows: Rows

    @property
    def export(self) -> ExportEvents:
        """Reading in bulk."""
        return ExportEvents(SQLBulkLog(self.rows))

    async def erase(self, position: int) -> None:
        """Destroy a payload, as erasure does."""
        await self.rows.fetch(f"DELETE FROM event_payloads WHERE position = {position}")


@pytest.fixture
async def world(database: Path | URL) -> AsyncGenerator[World, None]:
    """The same log on one of the databases."""
    clock = FakeClock()
    store, rows = await open_node(database, clock=clock, ids=CountingIds()), open_rows(database, strict=True)
    for number in range(SESSIONS):
        completion = f"c{number}"
        context = EventContext(
            tenant="acme" if number % 2 else "globex", actor=f"ann{number}", request_id=f"r{number}", correlation_id="k"
        )
        events: list[DomainEvent] = [
            started(),
            said("user", "é \u2028 '\"\\"),
            requested(completion),
            generated("hi", completion),
            said("assistant", "x" * 100 * number),
        ]
        await store.append(f"session-{number}", events, expected_version=0, context=context)
        clock.advance(1)
    yield World(store, rows)
    await rows.aclose()
    await store.aclose()


@pytest.mark.parametrize(
    "wanted",
    [
        EventFilter(),
        EventFilter(tenant="acme"),
        EventFilter(type="MessageAppended"),
        EventFilter(tenant="acme", type="CompletionGenerated", actor="ann1"),
        EventFilter(stream_id="session-2"),
        EventFilter(model_id="m"),
        EventFilter(tenant="globex", model_id="m", type="CompletionRequested"),
        EventFilter(request_id="r3"),
        EventFilter(correlation_id="k", min_position=4, max_position=9),
        EventFilter(since_us=NOW_US + 1_000_000, until_us=NOW_US + 3_000_000),
        EventFilter(since_us=NOW_US + 3_600_000_000),
        EventFilter(until_us=NOW_US - 1),
    ],
    ids=str,
)
async def test_the_same_events_as_the_pages_of_the_log(
    world: World, wanted: EventFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every filter, header for header and byte for byte, across pages that are shorter than the log."""
    monkeypatch.setattr(bulk, "PAGE_EVENTS", 4)
    sink = Collected()
    exported = await world.export.run(wanted, sink)
    expected = await world.store.query(wanted, limit=1000)
    assert exported.events == len(expected) == len(sink.rows)
    assert exported.log_position == 5 * SESSIONS
    for row, entry in zip(sink.rows, expected, strict=True):
        *header, salt, payload = row
        assert (salt, payload) == (entry.salt, entry.payload)
        assert header == [getattr(entry.header, name) for name in COLUMNS[:-2]]


async def test_an_erased_payload_is_a_row_without_one(world: World) -> None:
    """Its header stands, salt and payload are None, and nothing else moves."""
    await world.erase(7)
    sink = Collected()
    await world.export.run(EventFilter(), sink)
    assert [row[0] for row in sink.rows] == list(range(1, 5 * SESSIONS + 1))
    assert [row[0] for row in sink.rows if row[-1] is None] == [7]
    assert sink.rows[6][-2] is None


async def test_pages_are_bounded_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends once it holds enough, however few events that are, and always moves on."""
    monkeypatch.setattr(bulk, "PAGE_BYTES", 1)
    monkeypatch.setattr("manent.adapters.store.open_rows.FETCH_ROWS", 1)
    sink = Collected()
    await world.export.run(EventFilter(), sink)
    assert sink.pages == [1] * 5 * SESSIONS


async def test_a_selection_stands_still_while_the_log_grows(world: World) -> None:
    """Read twice, it is the same events, also after others were committed."""
    selection = await world.export.select(EventFilter(type="SessionStarted"))
    context = EventContext(tenant="acme", actor="ann")
    await world.store.append("session-late", [started()], expected_version=0, context=context)
    for _ in range(2):
        found = [row async for page in selection.pages(("position", "actor")) for row in page]
        assert [tuple(row) for row in found] == [(1 + 5 * number, f"ann{number}") for number in range(SESSIONS)]


async def test_progress_goes_by_positions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins at nothing, ends at all there is, and never goes back."""
    monkeypatch.setattr(bulk, "PAGE_EVENTS", 4)
    heard: list[tuple[int, int]] = []
    wanted = EventFilter(min_position=6, max_position=25, type="MessageAppended")
    await world.export.run(wanted, Collected(), report=lambda done, total: heard.append((done, total)))
    assert heard[0] == (0, 20)
    assert heard[-1] == (20, 20)
    assert heard == sorted(heard)


async def test_columns_come_alone(world: World) -> None:
    """Whoever needs one column of the header is given no payloads."""
    selection = await world.export.select(EventFilter(tenant="acme"))
    rows: list[Any] = [row async for page in selection.pages(("position", "type")) for row in page]
    assert {len(row) for row in rows} == {2}
    assert len(rows) == 5 * SESSIONS // 2
