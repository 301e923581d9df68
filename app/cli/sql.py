"""``manent sql``: one SELECT over the log, or over exported files."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manent.app.cli.database import opened_bulk_log
from manent.app.cli.output import ExitCode, fail, run, settings_or_fail
from manent.app.cli.result_rows import print_csv, print_json_lines, print_tables
from manent.app.settings import Settings
from manent.domain.errors import DomainError
from manent.domain.records import EventFilter
from manent.domain.usecases.export_events import ExportEvents, Row

if TYPE_CHECKING:
    from manent.adapters.analysis.query import Answer, Query, QueryLimits

STATEMENT_CHARS_MAX = 1_000_000
MIB = 1024 * 1024
# What the process may have beside the memory of the query itself: libraries, pages of the log, the printed result.
BESIDE_BYTES = 2048 * MIB

Show = Callable[["Answer"], None]


def sql(
    statement: Annotated[str, typer.Argument(help="The SELECT; - reads it from standard input.")],
    *,
    files: Annotated[
        list[Path] | None, typer.Option("--from", help="Parquet that was exported, to be read instead of the log.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with the columns' names first.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="How long the query may take, seconds.", min=0.1)] = 300,
    memory_mib: Annotated[int, typer.Option("--memory", help="Memory the query may use, MiB.", min=64)] = 2048,
) -> None:
    """Query the log in DuckDB's SQL, read-only: the tables events, completions, messages, sessions (DESCRIBE them)."""
    if json and as_csv:
        fail("--json and --csv are two formats; give one of them", ExitCode.USAGE)
    text = sys.stdin.read(STATEMENT_CHARS_MAX + 1) if statement == "-" else statement
    if len(text) > STATEMENT_CHARS_MAX:
        fail(f"the statement has more than {STATEMENT_CHARS_MAX} characters", ExitCode.USAGE)
    show = print_json_lines if json else print_csv if as_csv else print_tables
    settings = settings_or_fail()
    from manent.adapters.analysis.query import (  # noqa: PLC0415 (DuckDB, which no other command needs)
        QueryLimits,
        QueryRefused,
        QueryStopped,
    )

    limits = QueryLimits(timeout_s=timeout_s, memory_bytes=memory_mib * MIB)
    _bound_memory(limits)
    try:
        run(_over_files(files, text, limits, show) if files else _over_log(settings, text, limits, show))
    except QueryStopped as error:
        fail(f"the query was ended: {error}")
    except QueryRefused as error:
        fail(str(error), ExitCode.USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.NO) from None


async def _over_files(files: Sequence[Path], statement: str, limits: QueryLimits, show: Show) -> None:
    from manent.adapters.analysis.query import Query, exported_events  # noqa: PLC0415 (as above)

    await _answer(Query(exported_events(files), limits, stuck=_give_up), statement, show)


async def _over_log(settings: Settings, statement: str, limits: QueryLimits, show: Show) -> None:
    from manent.adapters.analysis.dataset import LogDataset  # noqa: PLC0415 (as above)
    from manent.adapters.analysis.query import Query  # noqa: PLC0415 (as above)

    async with opened_bulk_log(settings) as log:
        # Every scan of the query ends where the log stands now: one state, however often it is read.
        wanted = EventFilter(max_position=await log.last_position())
        pages = LivePages(ExportEvents(log))
        try:
            await _answer(Query(LogDataset(pages.read, wanted), limits, stuck=_give_up), statement, show)
        except Exception:
            # DuckDB wraps what a scan raises in words of its own.
            if pages.failure is not None:
                raise pages.failure from None
            raise


class LivePages:
    """Pages of the log for a thread of DuckDB's, read by the event loop of the thread that made this."""

    def __init__(self, log: ExportEvents) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self.failure: DomainError | None = None

    def read(self, wanted: EventFilter, columns: Sequence[str]) -> Iterator[Sequence[Row]]:
        """See ``Pages`` of the dataset."""
        try:
            selection = asyncio.run_coroutine_threadsafe(self._log.select(wanted), self._loop).result()
            pages = selection.pages(columns)
            while rows := asyncio.run_coroutine_threadsafe(_next(pages), self._loop).result():
                yield rows
        except DomainError as error:
            self.failure = error
            raise


async def _next(pages: AsyncIterator[Sequence[Row]]) -> Sequence[Row]:
    try:
        return await anext(pages)
    except StopAsyncIteration:
        return ()


async def _answer(query: Query, statement: str, show: Show) -> None:
    """Run the query in a thread, so that this one can read the log for it, and hear Ctrl-C."""
    running = asyncio.create_task(asyncio.to_thread(lambda: show(query.answer(statement))))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        query.cancel()
        with suppress(Exception):
            await running
        raise
    finally:
        query.close()


def _bound_memory(limits: QueryLimits) -> None:
    """What DuckDB does not count, as one very long text, is bounded by the system where it can (Linux)."""
    bound = limits.memory_bytes + BESIDE_BYTES
    with suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


def _give_up() -> None:
    sys.stderr.write("manent: the query does not stop; it is ended the hard way\n")
    sys.stderr.flush()
    os._exit(ExitCode.NO)


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.command("sql")(sql)
