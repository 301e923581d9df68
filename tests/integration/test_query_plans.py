"""Every audit filter is served by an index on SQLite, in log order: no scan of the log, no sorting."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from manent.adapters.store.event_query import select_page
from manent.domain.records import EventFilter
from tests.support.database import empty_database

# How the plan names the index that each filter must lead with, narrowest first; each stands with the reader's tenant.
LEADS = {
    "stream_id": "event_headers USING INDEX sqlite_autoindex_event_headers_1 (tenant=? AND stream_id=?",
    "request_id": "event_headers USING INDEX event_headers_request (request_id=?",
    "correlation_id": "event_headers USING INDEX event_headers_correlation (correlation_id=?",
    "model_id": "event_models USING COVERING INDEX sqlite_autoindex_event_models_1 (model_id=?",
    "actor": "event_headers USING INDEX event_headers_tenant_actor_position (tenant=? AND actor=?",
    "type": "event_headers USING INDEX event_headers_tenant_type_position (tenant=? AND type=?",
}
BY_TENANT = "event_headers USING INDEX event_headers_tenant_position (tenant=?"
BY_ACTOR_AND_TYPE = (
    "event_headers USING INDEX event_headers_tenant_actor_type_position (tenant=? AND actor=? AND type=?"
)
NAMES = sorted(LEADS)
SUBSETS = [names for count in range(len(NAMES) + 1) for names in itertools.combinations(NAMES, count)]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """An empty log without statistics, as every new one is."""
    path = tmp_path_factory.mktemp("log") / "manent.db"
    empty_database(path)
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def plan(database: sqlite3.Connection, event_filter: EventFilter, *, newest_first: bool = False) -> list[str]:
    """How SQLite would read a page."""
    page = select_page(event_filter, after_position=5, limit=10, newest_first=newest_first)
    compiled = page.compile(dialect=sqlite.dialect())
    values = tuple(compiled.params[name] for name in compiled.positiontup or ())
    return [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {compiled}", values)]


def asked(names: tuple[str, ...], max_position: int | None) -> EventFilter:
    """A filter by ``names`` within a tenant."""
    values: dict[str, Any] = dict.fromkeys(names, "x")
    return EventFilter(tenant="acme", max_position=max_position, **values)


def expected_lead(names: tuple[str, ...]) -> str:
    """The index that serves filters by ``names``."""
    first = next((lead for name, lead in LEADS.items() if name in names), BY_TENANT)
    return BY_ACTOR_AND_TYPE if first is LEADS["actor"] and "type" in names else first


@pytest.mark.parametrize("max_position", [None, 99])
@pytest.mark.parametrize("names", SUBSETS, ids=lambda names: "+".join(names) or "tenant")
def test_every_filter_leads_with_the_index_that_narrows_most(
    database: sqlite3.Connection, names: tuple[str, ...], max_position: int | None
) -> None:
    """Each filter alone, each pair and every larger set: the right key, no scan, no sort."""
    for newest_first in (False, True):
        steps = plan(database, asked(names, max_position), newest_first=newest_first)
        assert steps[0].startswith(f"SEARCH {expected_lead(names)}"), steps
        assert not [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step], steps


@pytest.mark.parametrize("names", [name for name in SUBSETS if name and "stream_id" not in name], ids="+".join)
def test_pages_go_on_along_the_key(database: sqlite3.Connection, names: tuple[str, ...]) -> None:
    """The positions of a page are part of the search: what lies before it costs nothing."""
    steps = plan(database, asked(names, 99))
    assert steps[0].endswith("AND position>? AND position<?)") or steps[0].endswith("AND rowid>? AND rowid<?)"), steps


def test_the_whole_log_is_read_by_its_key(database: sqlite3.Connection) -> None:
    """Without any filter, as verification reads, the primary key is the order."""
    assert plan(database, EventFilter())[0] == "SEARCH event_headers USING INTEGER PRIMARY KEY (rowid>?)"
