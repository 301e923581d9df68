"""``manent export``: the log in bulk, for whoever analyses it elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from typing import IO, Annotated, Protocol

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from manent.adapters.http.events import wire_members
from manent.adapters.http.times import EXPECTED
from manent.adapters.store.codec import header_row_bytes
from manent.app.cli.database import opened_bulk_log
from manent.app.cli.output import ExitCode, err, fail, literal, run, settings_or_fail
from manent.app.cli.output_file import STANDARD_OUTPUT, whole_output
from manent.app.cli.times import time_us
from manent.app.settings import Settings
from manent.domain.events import session_stream
from manent.domain.records import EventFilter
from manent.domain.usecases.export_events import COLUMNS, HEADER_COLUMNS, EventSink, Exported, ExportEvents, Row

# Rows come with the position first, and headers have their members in the order of their names.
_header_row = itemgetter(*(COLUMNS.index(name) for name in HEADER_COLUMNS))


class Format(StrEnum):
    """How events are written."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class _FileSink(EventSink, Protocol):
    async def finish(self, exported: Exported) -> None: ...

    async def aclose(self) -> None: ...


class JsonLinesSink:
    """Implements ``EventSink``: one event a line, as ``GET /v1/events`` has it, so that digests can be recomputed."""

    columns: Sequence[str] = COLUMNS

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()

    async def write(self, rows: Sequence[Row]) -> None:
        """See ``EventSink.write``."""
        lines = bytearray()
        for row in rows:
            header = msgspec.Raw(header_row_bytes(_header_row(row)))
            self._encoder.encode_into(wire_members(header, row[-1], row[-2]), lines, -1)
            lines += b"\n"
        self._file.write(lines)

    async def finish(self, exported: Exported) -> None:
        """Nothing stands behind the last line."""

    async def aclose(self) -> None:
        """There is nothing to stop."""


def export(
    *,
    output_format: Annotated[Format, typer.Option("--format", help="jsonl or parquet.")] = Format.JSONL,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write, once it is whole; - is standard output.")
    ] = STANDARD_OUTPUT,
    since: Annotated[str | None, typer.Option(help=f"Only what was recorded then or later: {EXPECTED}.")] = None,
    until: Annotated[str | None, typer.Option(help="Only what was recorded then or earlier.")] = None,
    model: Annotated[str | None, typer.Option(help="Only events that name this model, by its id.")] = None,
    type_name: Annotated[
        str | None, typer.Option("--type", help="Only this type, such as CompletionGenerated.")
    ] = None,
    session: Annotated[str | None, typer.Option(help="Only this session's stream.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant; without it, all.")] = None,
) -> None:
    """Write all events that match, as the log stands now: millions in flat memory, beside a server or without one."""
    wanted = EventFilter(
        tenant=tenant,
        stream_id=None if session is None else session_stream(session),
        type=type_name,
        model_id=model,
        since_us=time_us("--since", since),
        until_us=time_us("--until", until),
    )
    if output_format is Format.PARQUET and output == STANDARD_OUTPUT and sys.stdout.isatty():
        fail("Parquet is not for terminals; give --output FILE, or a pipe", ExitCode.USAGE)
    settings = settings_or_fail()
    try:
        exported = run(_export(settings, wanted, output_format, output))
    except BrokenPipeError:
        # Whoever reads has gone. What the interpreter flushes at its end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.NO) from None
    except OSError as error:
        name = "standard output" if output == STANDARD_OUTPUT else str(output)
        fail(f"{name} cannot be written: {error.strerror or error}")
    if output != STANDARD_OUTPUT:
        err.print(
            f"{exported.events} events in {literal(output)}, the log at position {exported.log_position}",
            soft_wrap=True,
        )


async def _export(settings: Settings, wanted: EventFilter, output_format: Format, output: Path) -> Exported:
    columns = TextColumn("exporting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    async with opened_bulk_log(settings) as log:
        with (
            Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars,
            whole_output(output) as file,
        ):
            bar = bars.add_task("", total=None)
            sink = _sink(output_format, file)
            try:
                exported = await ExportEvents(log).run(
                    wanted, sink, report=lambda done, total: bars.update(bar, completed=done, total=total)
                )
                await sink.finish(exported)
            finally:
                await sink.aclose()
    return exported


def _sink(output_format: Format, file: IO[bytes]) -> _FileSink:
    if output_format is Format.JSONL:
        return JsonLinesSink(file)
    from manent.adapters.analysis.parquet import ParquetSink  # noqa: PLC0415 (Arrow, which only this format needs)

    return ParquetSink(file)


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.command("export")(export)
