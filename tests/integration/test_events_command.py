"""``manent events``: the filters of GET /v1/events, on the database itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.system import RandomIds
from manent.domain.records import EventContext
from tests.support.commands import manent
from tests.support.conversation import requested, said, started
from tests.support.database import empty_database
from tests.support.fakes import CountingIds, FakeClock

ANN = EventContext(tenant="default", actor="ann", request_id="r1", correlation_id="k1")
BOB = EventContext(tenant="default", actor="bob", request_id="r2", correlation_id="k2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose log holds two conversations, a second apart."""
    folder = tmp_path_factory.mktemp("home")
    empty_database(folder / "manent.db")
    asyncio.run(fill(folder / "manent.db"))
    return folder


async def fill(path: Path) -> None:
    """Positions 1 and 2 are Ann's, 3 and 4 Bob's."""
    clock, ids = FakeClock(), CountingIds()
    await ensure_log(path, ids)
    store = SQLiteEventStore(path, clock=clock, ids=ids)
    await store.append("session-a", [started(), requested("c1")], expected_version=0, context=ANN)
    clock.advance(1)
    await store.append("session-b", [started(), requested("c2")], expected_version=0, context=BOB)
    await store.aclose()


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        (("--session", "b", "--actor", "bob", "--model", "m"), [4]),
        (("--request-id", "r1", "--correlation-id", "k1", "--type", "SessionStarted"), [1]),
        (("--since", "2023-11-14T22:13:21Z", "--until", "1700000001000000"), [3, 4]),
        (("--until", "2023-11-14T23:13:20+01:00", "--min-position", "2"), [2]),
        (("--stream", "session-a", "--max-position", "1"), [1]),
    ],
)
def test_filters_narrow(home: Path, options: Sequence[str], positions: list[int]) -> None:
    """Every option narrows, together with the others."""
    done = manent("events", "--json", *options, home=home)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["header"]["position"] for line in done.stdout.splitlines()] == positions


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--since", "yesterday"), "2026-11-24T09:30:00Z"),
        (("--session", "a", "--stream", "session-a"), "both"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(home: Path, options: Sequence[str], word: str) -> None:
    """A wrong time and two streams at once end the command with what would be right."""
    done = manent("events", *options, home=home)
    assert done.returncode == 2
    assert word in done.stderr


async def append_many(path: Path, count: int) -> None:
    """A stream that is longer than a page, and a message that would clear a terminal."""
    store = SQLiteEventStore(path, clock=FakeClock(), ids=RandomIds())
    began = replace(started(), tenant="default", owner="local")
    hostile = said("user", "evil \x1b]0;owned\x07\x1b[2J\u202etxt\nnext line")
    local = EventContext(tenant="default", actor="local")
    await store.append("session-hostile", [began, hostile], expected_version=0, context=local)
    await store.append("session-long", [started()] * count, expected_version=0, context=ANN)
    await store.aclose()


def test_all_events_are_printed_unless_a_limit_is_given(tmp_path: Path) -> None:
    """A script that reads --json misses nothing in silence: with a limit, standard error says that there is more."""
    empty_database(tmp_path / "manent.db")
    asyncio.run(fill(tmp_path / "manent.db"))
    asyncio.run(append_many(tmp_path / "manent.db", 1200))
    whole = manent("events", "--json", home=tmp_path)
    assert [json.loads(line)["header"]["position"] for line in whole.stdout.splitlines()] == list(range(1, 1207))
    assert whole.stderr == ""
    part = manent("events", "--json", "--limit", "700", "--after", "5", home=tmp_path)
    assert [json.loads(line)["header"]["position"] for line in part.stdout.splitlines()] == list(range(6, 706))
    assert "--after 705" in part.stderr


def test_what_a_client_wrote_does_not_move_the_cursor(tmp_path: Path) -> None:
    """Replay shows control characters and obeys none: neither escapes nor turned text."""
    empty_database(tmp_path / "manent.db")
    asyncio.run(fill(tmp_path / "manent.db"))
    asyncio.run(append_many(tmp_path / "manent.db", 1))
    done = manent("replay", "hostile", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not set("\x1b\x07\u202e") & set(done.stdout)
    assert "\\x1b]0;owned\\x07\\x1b[2J\\u202etxt\nnext line" in done.stdout
