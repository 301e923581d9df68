"""Lists of sessions and stored completions are served by an index in its order, on both databases: nothing sorts."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Select, select
from sqlalchemy.dialects import postgresql, sqlite

from manent.adapters.store.schema import sessions
from manent.adapters.store.session_list import choose_page, count_pairs, select_due, select_listed
from manent.adapters.store.stored_list import choose_stored, select_stored
from manent.domain.session_list import DueSession, SessionFilter
from manent.domain.stored_completions import StoredFilter
from tests.support.database import empty_database
from tests.support.postgres import PostgresServer

# The index that each filter must lead with, and what it looks up of it: owner given or not, pairs of metadata given.
LEADS = {
    (False, 0): ("sessions_status", "tenant status position"),
    (True, 0): ("sessions_owner", "tenant owner status position"),
    (False, 1): ("session_metadata_pair", "tenant status pair position"),
    (True, 1): ("session_metadata_owner", "tenant owner status pair position"),
    (False, 3): ("session_metadata_pair", "tenant status pair position"),
    (True, 3): ("session_metadata_owner", "tenant owner status pair position"),
}
CASES = [(*key, descending) for key, descending in itertools.product(LEADS, (False, True))]
DUE = DueSession(tenant="t", session_id="s", position=1, due_at_us=3, ttl_s=1, changed_at_us=1)


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """An empty log without statistics, as every new one is."""
    path = tmp_path_factory.mktemp("log") / "manent.db"
    empty_database(path)
    with closing(sqlite3.connect(path)) as connection:
        yield connection


@pytest.fixture(scope="module")
def on_postgres(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A database whose planner takes an index wherever one serves."""
    with postgres.database() as url:
        yield PostgresServer(url)


def page(pairs: int, *, by_owner: bool, descending: bool) -> Select[Any]:
    """A page by so many pairs of metadata."""
    wanted = SessionFilter(
        tenant="acme",
        owner="ann" if by_owner else None,
        metadata={f"k{number}": "v" for number in range(pairs)},
    )
    return select_listed(choose_page(wanted, above=5, below=99, limit=10, descending=descending))


def sqlite_plan(connection: sqlite3.Connection, query: Select[Any]) -> list[str]:
    """How SQLite would run ``query``."""
    compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
    values = tuple(compiled.params[name] for name in compiled.positiontup or ())
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {compiled}", values)]


def postgres_plan(server: PostgresServer, query: Select[Any]) -> list[str]:
    """How PostgreSQL would run ``query``."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
    compiled = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    settings = ["SET enable_seqscan = off", "SET enable_bitmapscan = off"]
    return [row[0] for row in server.run(*settings, f"EXPLAIN {compiled}")]


@pytest.mark.parametrize(("by_owner", "pairs", "descending"), CASES)
def test_lists_are_served_by_an_index_on_sqlite(
    on_sqlite: sqlite3.Connection, *, by_owner: bool, pairs: int, descending: bool
) -> None:
    """The page is a range of one index; the rest is looked up by key, the last event by its stream's key."""
    steps = sqlite_plan(on_sqlite, page(pairs, by_owner=by_owner, descending=descending))
    name, columns = LEADS[by_owner, pairs]
    looked_up = [f"{column}=?" for column in columns.split()[:-1]] + ["position>?", "position<?"]
    assert steps[1].endswith(f"USING INDEX {name} ({' AND '.join(looked_up)})"), steps
    assert [step for step in steps if step.startswith("SCAN")] == ["SCAN page"], steps
    assert not [step for step in steps if "TEMP B-TREE" in step], steps
    last = "SEARCH of_stream USING COVERING INDEX sqlite_autoindex_event_headers_1 (tenant=? AND stream_id=?)"
    assert last in steps, steps


@pytest.mark.parametrize(("by_owner", "pairs", "descending"), CASES)
def test_lists_are_served_by_an_index_on_postgresql(
    on_postgres: PostgresServer, *, by_owner: bool, pairs: int, descending: bool
) -> None:
    """The same on PostgreSQL, whose log is partitioned."""
    steps = postgres_plan(on_postgres, page(pairs, by_owner=by_owner, descending=descending))
    name, columns = LEADS[by_owner, pairs]
    scan = next(step for step in steps if re.search(rf"Index (Only )?Scan.* using {name} ", step))
    assert ("Backward" in scan) == descending
    condition = steps[steps.index(scan) + 1].replace('"', "")
    assert all(f"({column} " in condition for column in columns.split()), condition
    assert not [step for step in steps if "Seq Scan" in step or "Sort" in step], "\n".join(steps)
    assert [step for step in steps if "using event_headers_1_tenant_stream_id_stream_version_idx" in step], steps


@pytest.mark.parametrize("owner", [None, "ann"])
def test_pairs_are_counted_within_their_index(on_sqlite: sqlite3.Connection, owner: str | None) -> None:
    """Which of several pairs is the rarest is found without a look at any row."""
    steps = sqlite_plan(
        on_sqlite, count_pairs(SessionFilter(tenant="t", owner=owner, metadata={"a": "1", "b": "2", "c": "3"}))
    )
    searches = [step for step in steps if step.startswith("SEARCH")]
    assert len(searches) == 3, steps
    assert all("USING COVERING INDEX session_metadata_" in step and "pair=?" in step for step in searches), steps


def test_the_due_are_a_range_of_their_index(on_sqlite: sqlite3.Connection, on_postgres: PostgresServer) -> None:
    """The sweeper reads the sessions that may be due, and no other."""
    query = select_due(5, after=DUE, limit=10)
    lead = "SEARCH sessions USING INDEX sessions_expiry ((expires_at_us,position)>(?,?) AND expires_at_us<?)"
    assert lead in sqlite_plan(on_sqlite, query)
    steps = postgres_plan(on_postgres, query)
    scan = next(step for step in steps if "using sessions_expiry on sessions" in step)
    assert "ROW(expires_at_us" in steps[steps.index(scan) + 1]
    assert not [step for step in steps if "Seq Scan" in step or "Sort" in step], "\n".join(steps)


def test_one_session_is_found_by_its_key(on_sqlite: sqlite3.Connection) -> None:
    """The place behind which a page begins costs one look-up."""
    columns = sessions.c
    chosen = select(columns.tenant, columns.session_id, columns.position)
    chosen = chosen.where(columns.tenant == "t", columns.session_id == "s")
    steps = sqlite_plan(on_sqlite, select_listed(chosen))
    assert steps[0].startswith("SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (tenant=? AND session_id=?)")
    assert not [step for step in steps if step.startswith("SCAN")], steps


STORED_LEADS = {
    (None, 0): ("stored_completions_owner", "tenant owner status position"),
    ("m", 0): ("stored_completions_model", "tenant owner status model_id position"),
    (None, 2): ("stored_metadata_pair", "tenant owner status pair position"),
    ("m", 2): ("stored_metadata_pair", "tenant owner status pair position"),
}


@pytest.mark.parametrize(("model", "pairs"), STORED_LEADS)
def test_stored_completions_are_served_by_an_index(
    on_sqlite: sqlite3.Connection, on_postgres: PostgresServer, *, model: str | None, pairs: int
) -> None:
    """By owner, by model, by metadata: a range of one index in its order, and the rest by key."""
    wanted = StoredFilter(
        tenant="acme", owner="ann", model_id=model, metadata={f"k{number}": "v" for number in range(pairs)}
    )
    query = select_stored(choose_stored(wanted, above=5, below=99, limit=10, descending=True))
    name, columns = STORED_LEADS[model, pairs]
    steps = sqlite_plan(on_sqlite, query)
    looked_up = [f"{column}=?" for column in columns.split()[:-1]] + ["position>?", "position<?"]
    assert [step for step in steps if f"USING INDEX {name} ({' AND '.join(looked_up)})" in step], steps
    assert [step for step in steps if step.startswith("SCAN")] == ["SCAN page"], steps
    assert not [step for step in steps if "TEMP B-TREE" in step], steps
    steps = postgres_plan(on_postgres, query)
    scan = next(step for step in steps if re.search(rf"Index (Only )?Scan.* using {name} ", step))
    assert "Backward" in scan
    condition = steps[steps.index(scan) + 1].replace('"', "")
    assert all(f"({column} " in condition for column in columns.split()), condition
    assert not [step for step in steps if "Seq Scan" in step or "Sort" in step], "\n".join(steps)
