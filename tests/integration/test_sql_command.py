"""``manent sql``: analysts ask anything of the log, and nothing that they ask reaches anything else."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from manent.adapters.analysis.dataset import LogDataset
from manent.adapters.analysis.query import Query, QueryLimits, QueryRefused, exported_events
from manent.adapters.store.bulk import SQLBulkLog
from manent.adapters.store.database import open_node
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.sqlite import SQLiteEventStore
from manent.app.cli.sql import LivePages
from manent.domain.events import DomainEvent, SessionDeleted, SessionExpired, SessionMetadataChanged
from manent.domain.ports import EventStore
from manent.domain.records import EventContext, EventFilter
from manent.domain.usecases.export_events import ExportEvents
from tests.support.commands import manent
from tests.support.conversation import (
    NOW_US,
    cancelled,
    failed,
    generated,
    message,
    requested,
    said,
    started,
    system_replaced,
)
from tests.support.database import empty_database
from tests.support.fakes import CountingIds, FakeClock
from tests.support.server import environment

ERASED = 3
AT = "2023-11-14T22:13:2{}Z"


async def fill(store: EventStore, clock: FakeClock) -> None:
    """Three sessions and a completion without one, a second apart; positions are in the comments."""

    async def append(stream_id: str, *events: DomainEvent, tenant: str = "default") -> None:
        context = EventContext(tenant=tenant, actor="ann", request_id="r1")
        await store.append(stream_id, events, expected_version=0, context=context)
        clock.advance(1)

    answer = replace(said("assistant", "hi"), completion_id="c1")
    await append("session-a", started(), said("user", "é"), said("user", "gone"), requested("c1"))  # 1 to 4
    await append("session-b", started(), system_replaced("be kind"), tenant="acme")  # 5, 6
    await append("completion-c2", replace(requested("c2"), session_id=None), failed("c2"))  # 7, 8
    changed = SessionMetadataChanged(
        session_id="c", metadata={"team": "blue"}, ttl_s=60, changed_by="ann", changed_at_us=NOW_US
    )
    expired = SessionExpired(session_id="c", ttl_s=60, last_used_at_us=NOW_US, expired_at_us=NOW_US)
    await append("session-c", started(), changed, expired)  # 9 to 11
    deleted = SessionDeleted(session_id="d", deleted_by="ann", deleted_at_us=NOW_US)
    await append("session-d", started(), requested("c3"), cancelled("c3"), deleted)  # 12 to 15
    context = EventContext(tenant="default", actor="ann", request_id="r2")
    await store.append("session-a", [generated("hi", "c1"), answer], expected_version=4, context=context)  # 16, 17


async def make_log(database: Path | URL) -> None:
    """The log on a database that has today's schema."""
    clock = FakeClock()
    store = await open_node(database, clock=clock, ids=CountingIds())
    await fill(store, clock)
    await store.aclose()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the log on SQLite, in which one payload was erased."""
    folder = tmp_path_factory.mktemp("home")
    empty_database(folder / "manent.db")
    asyncio.run(make_log(folder / "manent.db"))
    with sqlite3.connect(folder / "manent.db") as connection:
        connection.execute(f"DELETE FROM event_payloads WHERE position = {ERASED}")
    connection.close()
    return folder


@pytest.fixture(scope="module")
def exported(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same log as Parquet."""
    file = tmp_path_factory.mktemp("exported") / "events.parquet"
    assert manent("export", "--format", "parquet", "-o", str(file), home=home).returncode == 0
    return file


@pytest.fixture(params=["log", "parquet"])
def source(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options that choose where events come from."""
    return ("--from", str(request.getfixturevalue("exported"))) if request.param == "parquet" else ()


def ask(home: Path, statement: str, *options: str, **settings: object) -> list[dict[str, Any]]:
    """The rows of an answer."""
    done = manent("sql", "--json", statement, *options, home=home, **settings)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


def test_events_are_all_there(home: Path, source: tuple[str, ...]) -> None:
    """The wide table: headers as they are, times as times, payloads as JSON, null where erased."""
    rows = ask(home, "SELECT * FROM events ORDER BY position", *source)
    assert [row["position"] for row in rows] == list(range(1, 18))
    assert [row["position"] for row in rows if row["payload"] is None] == [ERASED]
    assert rows[4]["tenant"] == "acme"
    assert rows[6]["recorded_at"] == AT.format(2)
    (found,) = ask(home, "SELECT payload->>'$.message.role' AS role FROM events WHERE position = 2", *source)
    assert found == {"role": "user"}


def test_completions_are_requests_with_their_outcomes(home: Path, source: tuple[str, ...]) -> None:
    """One row each, whatever became of it; times are those of the log."""
    rows = ask(home, "SELECT * FROM completions ORDER BY requested_position", *source)
    told = [(row["completion_id"], row["session_id"], row["outcome"], row["finish_reason"]) for row in rows]
    assert told == [("c1", "a", "generated", "stop"), ("c2", None, "failed", None), ("c3", "d", "cancelled", None)]
    first, second, third = rows
    assert (first["requested_at"], first["ended_at"]) == (AT.format(0), AT.format(5))
    assert (first["prompt_tokens"], first["completion_tokens"], first["cached_tokens"]) == (3, 2, 0)
    assert (first["prefill_s"], first["decode_s"], first["temperature"], first["seed"]) == (0.1, 0.2, 0.0, 1)
    assert (first["text"], first["model_id"], first["parameters"]["max_tokens"]) == ("hi", "m", 8)
    assert (second["error_code"], second["reason"], second["text"]) == ("runner_crashed", "killed", "he")
    assert (third["reason"], third["completion_tokens"]) == ("client_disconnected", None)


def test_messages_are_what_was_said(home: Path, source: tuple[str, ...]) -> None:
    """In their versions, with the completion that made them; an erased one keeps its place."""
    rows = ask(home, "SELECT * FROM messages ORDER BY position", *source)
    told = [(row["session_id"], row["version"], row["role"], row["text"], row["completion_id"]) for row in rows]
    assert told == [
        ("a", 2, "user", "é", None),
        ("a", 3, None, None, None),
        ("b", 2, "system", "be kind", None),
        ("a", 6, "assistant", "hi", "c1"),
    ]
    assert rows[0]["message_id"] == message("user", "é").message_id
    assert rows[0]["appended_at"] == AT.format(0)


def test_sessions_are_as_they_stand(home: Path, source: tuple[str, ...]) -> None:
    """With the latest metadata, and how they ended."""
    rows = ask(home, "SELECT * FROM sessions ORDER BY position", *source)
    told = [(row["tenant"], row["session_id"], row["status"], row["metadata"], row["ttl_s"]) for row in rows]
    assert told == [
        ("default", "a", "open", {}, None),
        ("acme", "b", "open", {}, None),
        ("default", "c", "expired", {"team": "blue"}, 60),
        ("default", "d", "deleted", {}, None),
    ]
    assert [row["ended_at"] for row in rows] == [None, None, AT.format(3), AT.format(4)]


def test_joins_and_ranges_are_answered(home: Path, exported: Path) -> None:
    """Filters that the log's indexes serve, and joins of a table with itself, change no answer."""
    counted = "SELECT count(*) AS n FROM events"
    statements: dict[str, int] = {}
    for where, expected in (
        ("type = 'MessageAppended' AND tenant = 'default'", 3),
        ("type = 'SessionStarted' AND position > 1 AND position <= 9", 2),
        ("recorded_at >= '2023-11-14T22:13:22Z' AND recorded_at < '2023-11-14T22:13:23Z'", 2),
        ("type IN ('SessionStarted', 'SessionDeleted')", 5),
        ("type = 'SessionStarted' OR position = 2", 5),
        ("type LIKE 'Completion%' AND payload IS NOT NULL", 6),
        ("request_id = 'r2' OR correlation_id IS NULL", 17),
        ("type = 'No \"such\" type'", 0),
    ):
        statements[f"{counted} WHERE {where}"] = expected
    joined = f"{counted} a JOIN events b ON a.stream_id = b.stream_id AND a.position < b.position"
    statements[joined] = 15 + 1 + 1 + 3 + 6
    together = "SELECT " + ", ".join(f"({statement})" for statement in statements)
    for options in ((), ("--from", str(exported))):
        (row,) = ask(home, together, *options)
        assert dict(zip(statements, row.values(), strict=True)) == statements


@pytest.mark.long
def test_postgresql_gives_the_same_answers(home: Path, postgres_url: URL) -> None:
    """Whichever database the log is in."""
    asyncio.run(make_log(postgres_url))
    url = postgres_url.render_as_string(hide_password=False)
    for statement in (
        "SELECT * EXCLUDE (log_id, event_id, salt, payload_digest) FROM events WHERE position <> 3 ORDER BY position",
        "SELECT * FROM completions ORDER BY requested_position",
        "SELECT * FROM messages WHERE position <> 3 ORDER BY position",
        "SELECT * FROM sessions WHERE started_at >= '2023-11-14T22:13:21Z' ORDER BY position",
    ):
        assert ask(home, statement, database_url=url) == ask(home, statement)


HOSTILE = (
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "COPY events TO '{folder}/out.parquet' (FORMAT parquet)",
    "EXPORT DATABASE '{folder}/out'",
    "ATTACH '{folder}/out.db'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW events AS SELECT 1",
    "DROP VIEW completions",
    "INSERT INTO events SELECT * FROM events",
    "UPDATE events SET type = 'x'",
    "DELETE FROM events",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET memory_limit = '900GB'",
    "RESET ALL",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "SELECT 1; COPY (SELECT 1) TO '{folder}/out.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/out.csv'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_json('{folder}/in.json')",
    "SELECT * FROM read_parquet('{folder}/*.parquet')",
    "SELECT * FROM '{folder}/in.json'",
    "SELECT * FROM parquet_metadata('{folder}/in.json')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_csv('https://127.0.0.1:1/x.csv')",
    "SELECT * FROM read_duckdb('{folder}/out.db')",
    "SELECT getenv('HOME')",
    "SELECT * FROM settings",
    "SELECT * FROM sys",
    "SELECT",
    "SELECT * FROM no_such_table",
    "",
    "\x00",
)


@pytest.mark.parametrize("statement", HOSTILE)
def test_nothing_but_reading_is_allowed(exported: Path, tmp_path: Path, statement: str) -> None:
    """No file is written or read, no extension comes in, no setting moves, no variable of ours is seen."""
    (tmp_path / "in.json").write_text('{"secret": 1}')
    query = Query(exported_events([exported]), QueryLimits(timeout_s=10))
    try:
        with pytest.raises(QueryRefused):
            list(query.answer(statement.format(folder=tmp_path)).pages)
        assert list(query.answer("SELECT count(*) FROM completions").pages) == [[(3,)]]
    finally:
        query.close()
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("SELECT count(*) FROM events a, events b, events c, events d, events e, events f, events g, events h", "1 s"),
        ("WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r) SELECT max(x) FROM r", "1 s"),
        ("SELECT list(range) FROM range(1000000000000)", "memory"),
        ("SELECT range FROM range(1000000000) ORDER BY hash(range)", "memory"),
        ("SELECT length(string_agg(repeat('x', 1000), '')) FROM range(1000000000)", "memory"),
    ],
)
def test_queries_end_within_their_bounds(home: Path, statement: str, word: str) -> None:
    """What would take for ever, or all memory, is ended with exit code 1 and the bound that it met."""
    done = manent("sql", "--timeout", "1", "--memory", "64", statement, home=home)
    assert done.returncode == 1
    assert word in done.stderr or "1 s" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_use_is_explained(home: Path, tmp_path: Path) -> None:
    """A wrong statement, two formats, a missing or foreign file: exit code 2 and what is wrong."""
    (tmp_path / "no.parquet").write_text("no")
    for arguments, word in (
        (("SELECT nothing FROM events",), "nothing"),
        (("SELECT 1", "--json", "--csv"), "--csv"),
        (("SELECT 1", "--from", str(tmp_path / "missing.parquet")), "missing.parquet"),
        (("SELECT 1", "--from", str(tmp_path / "no.parquet")), "no.parquet"),
    ):
        done = manent("sql", *arguments, home=home)
        assert done.returncode == 2, done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stderr


def test_every_format_shows_every_type(home: Path) -> None:
    """Nulls, nested values, big numbers, bytes, and text that would move a terminal's cursor."""
    statement = """SELECT NULL AS nothing, [1, NULL] AS list, {'a': 1} AS struct, MAP {'k': 'v'} AS map,
      170141183460469231731687303715884105727::HUGEINT AS big, 1.50::DECIMAL(5, 2) AS decimal, 'x'::BLOB AS bytes,
      DATE '2024-01-01' AS day, INTERVAL 1 DAY AS span, true AS yes, '{"j": [1]}'::JSON AS json, 'a,"b' AS text,
      chr(27) || '[2J' AS text, 'nan'::DOUBLE AS nan"""
    (row,) = ask(home, statement)
    assert row == {
        "nothing": None,
        "list": [1, None],
        "struct": {"a": 1},
        "map": {"k": "v"},
        "big": "170141183460469231731687303715884105727",
        "decimal": 1.5,
        "bytes": "eA==",
        "day": "2024-01-01",
        "span": "1 day, 0:00:00",
        "yes": True,
        "json": {"j": [1]},
        "text": 'a,"b',
        "text_1": "\x1b[2J",
        "nan": None,
    }
    names, cells = csv.reader(io.StringIO(manent("sql", "--csv", statement, home=home).stdout))
    assert names == list(row)
    assert cells[:4] == ["", "[1,null]", '{"a":1}', '{"k":"v"}']
    assert cells[11] == 'a,"b'
    shown = manent("sql", statement, home=home)
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout


def test_long_answers_come_in_pages(home: Path) -> None:
    """More rows than memory would like are streamed, in every format; a reader may go when it has enough."""
    for options in (("--json",), ("--csv",), ()):
        done = manent("sql", "SELECT range AS n FROM range(2500)", *options, home=home)
        assert done.returncode == 0
        assert "2499" in done.stdout
    command = [sys.executable, "-m", "manent.app", "sql", "--json", "SELECT range FROM range(100000000)"]
    with subprocess.Popen(command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == b""


def test_the_statement_comes_from_standard_input_too(home: Path) -> None:
    """``manent sql - < query.sql``."""
    done = subprocess.run(
        [sys.executable, "-m", "manent.app", "sql", "--csv", "-"],
        env=environment(home),
        input="SELECT count(*) AS n\nFROM events -- all of them\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["n", "17"]


def test_ctrl_c_ends_a_query(home: Path) -> None:
    """As a shell expects, without a traceback."""
    endless = "SELECT sum(range % 7) AS n FROM range(100000000000000)"  # long, and it keeps nothing in memory
    command = [sys.executable, "-m", "manent.app", "sql", "--csv", endless]
    with subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(3)  # long enough to be inside the query, or on the way to it: both have to end
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_a_query_sees_one_state_while_the_log_grows(tmp_path: Path) -> None:
    """Whatever is committed while a query runs, all of its scans end at one position."""
    path = tmp_path / "manent.db"
    empty_database(path)

    async def grow_and_ask() -> Sequence[tuple[int, int]]:
        await make_log(path)
        rows = open_rows(path, strict=True)
        log = SQLBulkLog(rows)
        wanted = EventFilter(max_position=await log.last_position())
        store = SQLiteEventStore(path, clock=FakeClock(), ids=CountingIds())
        context = EventContext(tenant="acme", actor="ann")
        await store.append("session-late", [started()] * 5, expected_version=0, context=context)
        query = Query(LogDataset(LivePages(ExportEvents(log)).read, wanted), QueryLimits())
        answer = await asyncio.to_thread(
            lambda: list(query.answer("SELECT (SELECT max(position) FROM events), (SELECT count(*) FROM events)").pages)
        )
        await rows.aclose()
        await store.aclose()
        return answer[0]

    assert asyncio.run(grow_and_ask()) == [(17, 17)]


def test_the_other_commands_do_not_wait_for_the_libraries(home: Path) -> None:
    """DuckDB and Arrow are imported by the commands that use them, and by no other: they take half a second."""
    program = (
        "import sys; from manent.app.cli.root import build_app\n"
        "build_app({called!r})\n"
        "print([name for name in ('duckdb', 'pyarrow', 'sqlalchemy') if name in sys.modules])"
    )
    for called, loaded in (("--version", []), ("chat", []), ("export", ["sqlalchemy"]), ("sql", ["sqlalchemy"])):
        done = subprocess.run(
            [sys.executable, "-c", program.format(called=called)],
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.strip() == str(loaded), called
