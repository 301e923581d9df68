"""``manent replay`` and ``manent events``: the log, read from the database itself, with or without a server."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from manent.adapters.http.events import event_members
from manent.adapters.http.times import EXPECTED, microseconds
from manent.adapters.projections.lru import LruContextCache
from manent.app.cli.database import opened_store
from manent.app.cli.output import ExitCode, err, fail, out, print_json, run, settings_or_fail, visible
from manent.app.settings import Settings
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.events import session_stream
from manent.domain.messages import Role
from manent.domain.records import EventFilter
from manent.domain.session import SessionState
from manent.domain.usecases.query_log import LIMIT_MAX, EventPage, QueryLog
from manent.domain.usecases.replay import Replay
from manent.domain.usecases.sessions import Sessions

COLORS = {Role.SYSTEM: "magenta", Role.USER: "cyan", Role.ASSISTANT: "green", Role.TOOL: "yellow"}
TABLE_ROWS, PAGE = 100, 500
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def replay(
    session: Annotated[str, typer.Argument(help="The session's id.")],
    *,
    at: Annotated[int | None, typer.Option(help="Version of the session's stream; without it, now.")] = None,
    json: Json = False,
) -> None:
    """Show a conversation as it stood at a version of its stream."""
    state = run(_replay(settings_or_fail(), session, at))
    if json:
        print_json(_replay_object(state))
        return
    out.print(
        f"[bold]{state.session_id}[/bold] at version {state.version}, {state.status}, {len(state.messages)} messages"
    )
    for message in state.messages:
        out.print(f"[{COLORS[message.role]}]{message.role}[/]: {escape(visible(message.text))}", soft_wrap=True)


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
        since_us=_time_us("--since", since),
        until_us=_time_us("--until", until),
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
        table.add_row(*(escape(visible(str(cell))) if cell is not None else "" for cell in row))
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


async def _replay(settings: Settings, session: str, at: int | None) -> SessionState:
    async with opened_store(settings) as store:
        return await Replay(Sessions(store, LruContextCache(budget_bytes=0))).at(LOCAL_OPERATOR, session, version=at)


async def _events(settings: Settings, event_filter: EventFilter, after: int, limit: int) -> EventPage:
    async with opened_store(settings) as store:
        return await QueryLog(store).page(LOCAL_OPERATOR, event_filter, after_position=after, limit=limit)


def _time_us(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else microseconds(text)
    except ValueError as error:
        fail(f"{option}: {error}", ExitCode.USAGE)


def _replay_object(state: SessionState) -> dict[str, object]:
    return {
        "object": "session.replay",
        "id": state.session_id,
        "version": state.version,
        "status": state.status,
        "owner": state.owner,
        "metadata": dict(state.metadata),
        "messages": [
            {"id": message.message_id, "role": message.role, "content": message.text} for message in state.messages
        ],
    }


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.command("replay")(replay)
    root.command("events")(events)
