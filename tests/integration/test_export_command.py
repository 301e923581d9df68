"""``manent export``: everything that was asked for, whole or not at all, wherever it is written to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manent.adapters.store.codec import header_bytes
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.cli.output_file import whole_output
from manent.domain.events import DomainEvent
from manent.domain.records import EventContext, EventHeader
from tests.support.commands import manent
from tests.support.conversation import NOW_US, generated, requested, said, started
from tests.support.database import empty_database
from tests.support.fakes import CountingIds, FakeClock
from tests.support.server import environment

EVENTS = 12
LONG = 30_000


async def fill(path: Path) -> None:
    """Conversations of two tenants, a second apart; the payload of position 3 was erased."""
    clock, ids = FakeClock(), CountingIds()
    await ensure_log(path, ids)
    store = SQLiteEventStore(path, clock=clock, ids=ids)
    for tenant, name in (("default", "a"), ("acme", "b"), ("default", "c")):
        events: list[DomainEvent] = [
            started(),
            said("user", "é \u2028 '\"\\\n"),
            requested(name),
            generated("hi", name),
        ]
        context = EventContext(tenant=tenant, actor="ann", request_id=f"r-{name}")
        await store.append(f"session-{name}", events, expected_version=0, context=context)
        clock.advance(1)
    await store.aclose()
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM event_payloads WHERE position = 3")
    connection.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose log holds three conversations."""
    folder = tmp_path_factory.mktemp("home")
    empty_database(folder / "manent.db")
    asyncio.run(fill(folder / "manent.db"))
    return folder


@pytest.fixture(scope="module")
def long_home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose export takes a moment."""

    async def lengthen() -> None:
        store = SQLiteEventStore(folder / "manent.db", clock=FakeClock(), ids=CountingIds())
        context = EventContext(tenant="default", actor="bob")
        for version in range(0, LONG, 10_000):
            events = [said("user", "x" * 1000)] * 10_000
            await store.append("session-long", events, expected_version=version, context=context)
        await store.aclose()

    folder = tmp_path_factory.mktemp("long")
    empty_database(folder / "manent.db")
    asyncio.run(ensure_log(folder / "manent.db", CountingIds()))
    asyncio.run(lengthen())
    return folder


def test_json_lines_are_the_events_of_the_api(home: Path) -> None:
    """Byte for byte what ``manent events --json`` prints, of all tenants or of one; digests can be recomputed."""
    done = manent("export", "--tenant", "default", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == manent("events", "--json", home=home).stdout
    lines = manent("export", home=home).stdout.strip("\n").split("\n")
    assert [json.loads(line)["header"]["position"] for line in lines] == list(range(1, EVENTS + 1))
    for line in lines:
        event = json.loads(line)
        if event["payload"] is not None:
            payload = line.split('"payload":', 1)[1].rsplit(',"salt":', 1)[0].encode()
            digest = hashlib.sha256(base64.b64decode(event["salt"]) + payload).hexdigest()
            assert digest == event["header"]["payload_digest"]
    assert [json.loads(line)["header"]["position"] for line in lines if json.loads(line)["salt"] is None] == [3]


def test_parquet_holds_every_column_of_the_log(home: Path, tmp_path: Path) -> None:
    """Headers can be hashed from it and payloads digested; times are times, an erased payload is null."""
    file = tmp_path / "events.parquet"
    done = manent("export", "--format", "parquet", "--output", str(file), home=home)
    assert done.returncode == 0, done.stderr
    assert f"{EVENTS} events" in done.stderr
    table = pq.read_table(file)
    assert table.schema.field("recorded_at").type == pa.timestamp("us", tz="UTC")
    assert pq.read_metadata(file).metadata[b"manent.log_position"] == str(EVENTS).encode()
    lines = manent("export", home=home).stdout.strip("\n").split("\n")
    rows = table.to_pylist()
    assert len(rows) == len(lines) == EVENTS
    for row, line in zip(rows, lines, strict=True):
        event = json.loads(line)
        recorded_at_us = int(row["recorded_at"].timestamp() * 1_000_000)
        names = EventHeader.__dataclass_fields__
        header = EventHeader(**{name: row.get(name, recorded_at_us) for name in names})
        assert header_bytes(header) == json.dumps(event["header"], ensure_ascii=False, separators=(",", ":")).encode()
        assert (None if row["payload"] is None else json.loads(row["payload"])) == event["payload"]
        if row["payload"] is not None:
            assert hashlib.sha256(row["salt"] + row["payload"].encode()).hexdigest() == row["payload_digest"]


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        (("--type", "CompletionRequested"), [3, 7, 11]),
        (("--tenant", "acme", "--type", "SessionStarted"), [5]),
        (("--session", "c"), [9, 10, 11, 12]),
        (("--model", "m", "--tenant", "default"), [3, 4, 11, 12]),
        (("--since", "2023-11-14T22:13:21Z", "--until", str(NOW_US + 1_000_000)), [5, 6, 7, 8]),
        (("--type", "Nothing"), []),
    ],
)
@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
def test_filters_narrow(
    home: Path, tmp_path: Path, output_format: str, options: Sequence[str], positions: list[int]
) -> None:
    """Every option narrows, in either format; where nothing matches there is a valid empty file."""
    file = tmp_path / "out"
    done = manent("export", "--format", output_format, "-o", str(file), *options, home=home)
    assert done.returncode == 0, done.stderr
    if output_format == "parquet":
        assert pq.read_table(file)["position"].to_pylist() == positions
    else:
        assert [json.loads(line)["header"]["position"] for line in file.read_text().split("\n")[:-1]] == positions


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--since", "yesterday"), "2026-11-24T09:30:00Z"),
        (("--format", "xml"), "jsonl"),
        (("--output", "/nowhere/at/all"), "No such file"),
        (("--output", "/"), "directory"),
    ],
)
def test_what_cannot_be_meant_is_refused(home: Path, options: Sequence[str], word: str) -> None:
    """The message says what was wrong, and nothing is printed."""
    done = manent("export", *options, home=home)
    assert done.returncode in {1, 2}
    assert word in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
def test_a_full_disk_leaves_no_half_file(long_home: Path, tmp_path: Path, output_format: str) -> None:
    """What stood under the name before still stands there, and no part of the new one is left beside it."""
    file = tmp_path / "out"
    file.write_text("the last good export")
    done = subprocess.run(
        [sys.executable, "-m", "manent.app", "export", "--format", output_format, "-o", str(file)],
        env=environment(long_home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)),
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert file.read_text() == "the last good export"


def test_a_reader_that_goes_is_no_traceback(long_home: Path) -> None:
    """``manent export | head`` ends with 1 and without a word."""
    for output_format in ("jsonl", "parquet"):
        with subprocess.Popen(
            [sys.executable, "-m", "manent.app", "export", "--format", output_format],
            env=environment(long_home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(4)
            process.stdout.close()
            assert process.wait(timeout=60) == 1
            assert process.stderr.read() == b""


def test_an_interrupted_export_leaves_nothing(long_home: Path, tmp_path: Path) -> None:
    """Ctrl-C ends it as shells expect, and neither the file nor a part of it is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "manent.app", "export", "-o", str(tmp_path / "out")],
        env=environment(long_home),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_damage_is_named(home: Path, tmp_path: Path) -> None:
    """A value of the wrong kind ends the export, with where it stands and what says more."""
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    with sqlite3.connect(home / "manent.db") as source, sqlite3.connect(damaged / "manent.db") as copy:
        source.backup(copy)
        for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            copy.execute(f"DROP TRIGGER {name}")
        copy.execute("UPDATE event_headers SET recorded_at_us = 'noon' WHERE position = 4")
    source.close()
    copy.close()
    done = manent("export", "--format", "parquet", "-o", str(tmp_path / "out"), home=damaged)
    assert done.returncode == 1
    assert "log verify" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Writes three bytes to a path."""

    def write(path: Path) -> None:
        with whole_output(path) as file:
            file.write(b"new")

    yield write
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_links_are_followed_and_pipes_are_written(tmp_path: Path, written: Callable[[Path], None]) -> None:
    """A link stays a link to the new file; a pipe is no file to be replaced."""
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    written(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    written(tmp_path / "pipe")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_is_for_its_owner_alone(tmp_path: Path, written: Callable[[Path], None]) -> None:
    """Conversations are nobody else's business."""
    written(tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
