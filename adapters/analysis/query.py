"""One SELECT over the export schema, by a DuckDB that can reach nothing else: no files, no network, no settings.

The database is in memory and holds views alone. Time and memory are bounded; what a query needs beyond them ends it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from manent.adapters.analysis.arrow import EVENTS
from manent.adapters.analysis.views import VIEWS

PAGE_ROWS = 1000
GRACE_S = 10.0
SETTINGS = (
    "SET TimeZone = 'UTC'",
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET disabled_filesystems = 'LocalFileSystem'",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


class QueryRefused(Exception):
    """The query is wrong, or asks for more than reading; the message says how."""


class QueryStopped(QueryRefused):
    """The query needs more time or memory than it may use, or was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """What one query may use. ``memory_bytes`` is DuckDB's own, beside the pages of the log that it reads."""

    timeout_s: float = 300.0
    memory_bytes: int = 2 * 1024**3
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """Names of the columns, those of them that hold JSON text, and the rows in pages, read while the query runs."""

    columns: Sequence[str]
    json_columns: frozenset[str]
    pages: Generator[Sequence[tuple[Any, ...]], None, None]


def exported_events(files: Sequence[Path]) -> ds.Dataset:
    """The table ``events`` of Parquet files that were exported.

    Raises:
        QueryRefused: a file is missing, or is no such export.
    """
    try:
        found = ds.dataset([str(path) for path in files], format="parquet")
    except (OSError, pa.ArrowException) as error:
        raise QueryRefused(f"the files cannot be read: {error}") from error
    missing = [name for name in EVENTS.names if name not in found.schema.names]
    if missing:
        raise QueryRefused(f"{files[0]} is no export of events: it has no columns {', '.join(missing)}")
    return found


class Query:
    """A statement that is answered once; ``cancel`` may come from another thread at any time.

    ``stuck`` is called where a query that was told to stop does not within ``GRACE_S``: some of DuckDB's steps do not
    look up. What reads the pages may take its time: only DuckDB's own counts.
    """

    def __init__(self, events: ds.Dataset, limits: QueryLimits, *, stuck: Callable[[], None] = lambda: None) -> None:
        self._limits = limits
        self._left_s = limits.timeout_s
        self._late = False
        self._stuck = stuck
        self._connection = duckdb.connect(
            ":memory:",
            config={"threads": limits.threads, "memory_limit": f"{limits.memory_bytes}B", "temp_directory": ""},
        )
        self._connection.register("events", events)
        for name, select in VIEWS.items():
            self._connection.execute(f"CREATE VIEW {name} AS {select}")
        for setting in SETTINGS:
            self._connection.execute(setting)

    def cancel(self) -> None:
        """End the query that runs, wherever it is."""
        self._connection.interrupt()

    def close(self) -> None:
        """Give back what it held."""
        self._connection.close()

    def answer(self, statement: str) -> Answer:
        """The answer to ``statement``, which has to be one SELECT (or EXPLAIN, DESCRIBE, SHOW TABLES).

        Raises:
            QueryRefused, QueryStopped: also while its pages are read.
        """
        with self._translated_errors(), self._timed():
            self._connection.execute(_only_reading(duckdb.extract_statements(statement)))
            described = self._connection.description or []
        columns = _distinct([column[0] for column in described])
        are_json = frozenset(name for name, column in zip(columns, described, strict=True) if str(column[1]) == "JSON")
        return Answer(columns, are_json, self._pages())

    def _pages(self) -> Generator[Sequence[tuple[Any, ...]], None, None]:
        while rows := self._page():
            yield rows

    def _page(self) -> Sequence[tuple[Any, ...]]:
        with self._translated_errors(), self._timed():
            return self._connection.fetchmany(PAGE_ROWS)

    @contextmanager
    def _timed(self) -> Generator[None, None, None]:
        """Interrupt what is inside once the query's time is spent."""
        began_s = time.monotonic()
        left_s = max(0.0, self._left_s)
        timers = threading.Timer(left_s, self._time_out), threading.Timer(left_s + GRACE_S, self._stuck)
        for timer in timers:
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()
            self._left_s -= time.monotonic() - began_s
        if self._late:
            raise duckdb.InterruptException

    def _time_out(self) -> None:
        self._late = True
        self._connection.interrupt()

    @contextmanager
    def _translated_errors(self) -> Generator[None, None, None]:
        try:
            yield
        except duckdb.InterruptException:
            limit = f"it took longer than {self._limits.timeout_s:g} s" if self._late else "it was stopped"
            raise QueryStopped(limit) from None
        except duckdb.OutOfMemoryException as error:
            bound = f"{self._limits.memory_bytes // 1024**2} MiB"
            raise QueryStopped(f"it needs more memory than the {bound} that it may use: {_first_line(error)}") from None
        except duckdb.Error as error:
            raise QueryRefused(str(error)) from None


def _only_reading(statements: Sequence[duckdb.Statement]) -> duckdb.Statement:
    if len(statements) != 1:
        raise QueryRefused(f"give one statement, not {len(statements)}")
    (statement,) = statements
    if statement.type not in {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}:
        raise QueryRefused(f"only reading is allowed: give a SELECT, not {statement.type.name}")
    return statement


def _distinct(names: Sequence[str]) -> Sequence[str]:
    """Each column under a name of its own, as objects need: the second ``n`` is ``n_1``."""
    taken: list[str] = []
    for name in names:
        number, free = 0, name
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        taken.append(free)
    return taken


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
