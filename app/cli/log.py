"""``manent events``: the log, read from the database itself, with or without a server."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from manent.adapters.http.events import event_members
from manent.adapters.http.times import EXPECTED
from manent.app.cli.database import opened_store
from manent.app.cli.output import ExitCode, err, fail, literal, out, print_json, run, settings_or_fail
from manent.app.cli.times import time_us
from manent.app.settings import Settings
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.events import session_stream
from manent.domain.records import EventFilter
from manent.domain.usecases.query_log import LIMIT_MAX, EventPage, QueryLog

TABLE_ROWS, PAGE = 100, 500
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def events(
    *,
    stream: Annotated[str | None, typer.Option(help="Only this stream, such as session-<id>.")] = None,
    session: Annotated[str | None, typer.Option(help="Only this session's stream.")] = None,
    type_name: Annotated[str | None, typer.Option("--type", help="Only this type, such as MessageAppended.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this subject caused.")] = None,
    model: Annotated[str | None, typer.Option(help="Only events that name this model, by its id.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Only what this request caused.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Only what came with this correlation id.")] = None,
    since: Annotated[str | None, typer.Option(help=f"Only what was recorded then or later: {EXPECTED}.")] = None,
    until: Annotated[str | None, typer.Option(help="Only what was recorded then or earlier.")] = None,
    min_position: Annotated[int | None, typer.Option(help="Only from this position on.", min=1)] = None,
    max_position: Annotated[int | None, typer.Option(help="Only up to this position.", min=1)] = None,
    after: Annotated[int, typer.Option(help="Only positions above this one.", min=0)] = 0,
    limit: Annotated[int | None, typer.Option(help="How many at most; 100, and with --json all.", min=1)] = None,
    json: Json = False,
) -> None:
    """List events of the log in its order; the last position is what the next page's --after takes."""
    if session is not None and stream is not None:
        fail("--session and --stream both name a stream; give one of them", ExitCode.USAGE)
    event_filter = EventFilter(
        stream_id=session_stream(session) if session is not None else stream,
        type=type_name,
        actor=actor,
        model_id=model,
        request_id=request_id,
        correlation_id=correlation_id,
        since_us=time_us("--since", since),
        until_us=time_us("--until", until),
        min_position=min_position,
        max_position=max_position,
    )
    if json:
        run(_print_events(settings_or_fail(), event_filter, after, limit))
        return
    page = run(_events(settings_or_fail(), event_filter, after, min(limit or TABLE_ROWS, LIMIT_MAX)))
    table = Table(box=None)
    for name in ("position", "type", "stream", "version", "actor", "request"):
        table.add_column(name, overflow="fold")
    for entry in page.events:
        header = entry.header
        row = (header.position, header.type, header.stream_id, header.stream_version, header.actor, header.request_id)
        table.add_row(*(literal(cell) if cell is not None else "" for cell in row))
    out.print(table)
    _tell_more(page)


async def _print_events(settings: Settings, event_filter: EventFilter, after: int, limit: int | None) -> None:
    """Print events one a line, page after page, until the end or the limit; nothing is left out in silence."""
    left = limit
    async with opened_store(settings) as store:
        while True:
            size = PAGE if left is None else min(PAGE, left)
            page = await QueryLog(store).page(LOCAL_OPERATOR, event_filter, after_position=after, limit=size)
            for entry in page.events:
                print_json(event_members(entry))
            left = None if left is None else left - len(page.events)
            if not page.has_more or left == 0:
                break
            after = page.events[-1].header.position
    _tell_more(page)


def _tell_more(page: EventPage) -> None:
    if page.has_more:
        err.print(f"more with --after {page.events[-1].header.position}")


async def _events(settings: Settings, event_filter: EventFilter, after: int, limit: int) -> EventPage:
    async with opened_store(settings) as store:
        return await QueryLog(store).page(LOCAL_OPERATOR, event_filter, after_position=after, limit=limit)


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.command("events")(events)
