"""An export to Parquet beside pyarrow writing the same rows from memory, and the memory that exports take.

The bare side has all rows in memory as tuples, as the driver gives them, and then makes Arrow's columns of them and
writes them with the same settings, row group by row group. Each run is a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
import uvloop
from sqlalchemy import URL, make_url

from manent.adapters.analysis.arrow import EVENTS, record_batch
from manent.adapters.analysis.parquet import REPEATED, ROW_GROUP_EVENTS, SKIPPED_BY, ParquetSink
from manent.adapters.store.bulk import SQLBulkLog
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.open_rows import open_rows
from manent.app.cli.export import JsonLinesSink
from manent.domain.records import EventFilter
from manent.domain.usecases.export_events import ExportEvents, Row
from tests.benchmarks.audit import write_log
from tests.support.postgres import serving_postgres

SIZES = (10_000, 100_000, 1_000_000)


def compare(*, sizes: Sequence[int] = SIZES, rounds: int = 5) -> None:
    """Make the logs, measure, and print."""
    with tempfile.TemporaryDirectory(prefix="manent-bench-") as folder:
        paths = {size: Path(folder) / f"{size}.db" for size in sizes}
        for size, path in paths.items():
            upgrade(path)
            uvloop.run(write_log(path, size))
        _print("SQLite", paths, rounds)
    with serving_postgres() as server, server.database() as url:
        uvloop.run(write_log(url, sizes[-1]))
        server.run("VACUUM ANALYZE", url=url)
        _print("PostgreSQL", {sizes[-1]: url}, rounds)


def _print(name: str, databases: dict[int, Path] | dict[int, URL], rounds: int) -> None:
    sys.stdout.write(f"Exports of a log on {name}, medians of {rounds} rounds:\n")
    for size, database in databases.items():
        runs = [(_apart(database, "parquet"), _apart(database, "bare")) for _ in range(rounds)]
        took_s, memory = (median(column) for column in zip(*(ours for ours, _ in runs), strict=True))
        bare_s = median(bare for _, (bare, _) in runs)
        ratio = median(ours / bare for (ours, _), (bare, _) in runs)
        sys.stdout.write(
            f"  parquet of {size:>9,}: {size / took_s:9,.0f} events/s beside {size / bare_s:9,.0f} from memory: "
            f"{ratio:.2f} times as long, peak {memory:.0f} MiB\n"
        )
    took_s, memory = (
        median(column) for column in zip(*(_apart(database, "jsonl") for _ in range(rounds)), strict=True)
    )
    sys.stdout.write(f"  jsonl   of {size:>9,}: {size / took_s:9,.0f} events/s, peak {memory:.0f} MiB\n")


def _apart(database: Path | URL, what: str) -> tuple[float, float]:
    where = str(database) if isinstance(database, Path) else database.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.benchmarks.export", where, what]
    took_s, memory = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return took_s, memory


class _Kept:
    """A sink that keeps all rows."""

    columns = ParquetSink.columns

    def __init__(self) -> None:
        self.rows: list[Row] = []

    async def write(self, rows: Sequence[Row]) -> None:
        """See ``EventSink.write``."""
        self.rows += rows


async def _export(database: Path | URL, what: str, file: IO[bytes]) -> float:
    """How long it took, in seconds."""
    rows = open_rows(database, strict=True)
    log = ExportEvents(SQLBulkLog(rows))
    try:
        if what == "bare":
            kept = _Kept()
            await log.run(EventFilter(), kept)
            return _write_bare(kept.rows, file)
        began = time.perf_counter()
        sink = ParquetSink(file) if what == "parquet" else JsonLinesSink(file)
        await sink.finish(await log.run(EventFilter(), sink))
        await sink.aclose()
        return time.perf_counter() - began
    finally:
        await rows.aclose()


def _write_bare(rows: list[Row], file: IO[bytes]) -> float:
    began = time.perf_counter()
    with pq.ParquetWriter(
        file, EVENTS, compression="zstd", compression_level=1, use_dictionary=REPEATED, write_statistics=SKIPPED_BY
    ) as writer:
        for first in range(0, len(rows), ROW_GROUP_EVENTS):
            batch = record_batch(rows[first : first + ROW_GROUP_EVENTS], EVENTS)
            writer.write_table(pa.Table.from_batches([batch]))
    return time.perf_counter() - began


def main() -> None:
    """One export: the database and what of it; prints seconds, and MiB at the peak."""
    where, what = sys.argv[1:]
    database = make_url(where) if "://" in where else Path(where)
    with tempfile.TemporaryFile() as file:
        took_s = asyncio.run(_export(database, what, file))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    sys.stdout.write(json.dumps([took_s, memory]))


if __name__ == "__main__":
    main()
