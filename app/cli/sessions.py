"""``manent sessions`` and ``manent replay``: recorded conversations, read from the database with or without a server.

Only ``rerun`` and ``context`` need a server, since they need a model: they are in ``reruns.py`` and ``contexts.py``.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from manent.adapters.http.replay_diff import diff_answer
from manent.adapters.http.replay_export import event_line, markdown_file, messages_file
from manent.adapters.http.replay_import import read_session_file
from manent.adapters.http.sessions import session_answer
from manent.adapters.http.times import EXPECTED
from manent.adapters.images.fetching import ImageFetcher
from manent.adapters.images.reader import CheckedImages
from manent.adapters.store.session_file import read_events_file
from manent.app.cli.contexts import context
from manent.app.cli.diff_view import print_diff
from manent.app.cli.output import ExitCode, err, fail, literal, out, print_json, run, settings_or_fail
from manent.app.cli.output_file import STANDARD_OUTPUT, whole_output
from manent.app.cli.recorded import opened_sessions, print_message, replay_object
from manent.app.cli.reruns import rerun
from manent.app.cli.times import time_us
from manent.app.settings import Settings
from manent.app.system import RandomIds
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.errors import ImportRefused
from manent.domain.session import SessionState
from manent.domain.usecases.diff_sessions import SessionDiff
from manent.domain.usecases.fork_session import ForkCommand
from manent.domain.usecases.import_session import ImportCommand, SessionFile
from manent.domain.usecases.replay import AsOf

FILE_BYTES_MAX = 256 * 1024 * 1024

app = typer.Typer(
    help="Sessions: show, fork, rerun, compare, export and import them; what a model saw.", no_args_is_help=True
)

Session = Annotated[str, typer.Argument(help="The session's id.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsOfVersion = Annotated[
    int | None, typer.Option("--as-of-version", "--at", help="As it stood at this version of its stream.")
]
AsOfPosition = Annotated[int | None, typer.Option(help="As it stood at this position of the log.", min=1)]
AsOfTime = Annotated[str | None, typer.Option(help=f"As it stood at this time: {EXPECTED}.")]


class ExportFormat(StrEnum):
    """What a session is exported as."""

    EVENTS = "events"
    MESSAGES = "messages"
    MARKDOWN = "markdown"


class ImportFormat(StrEnum):
    """What a session is imported from."""

    EVENTS = "events"
    MESSAGES = "messages"


def show(
    session: Session,
    *,
    as_of_version: AsOfVersion = None,
    as_of_position: AsOfPosition = None,
    as_of: AsOfTime = None,
    json: Json = False,
) -> None:
    """Show a conversation as it stands, or as it stood."""
    moment = _moment(as_of_version, as_of_position, as_of)
    state = run(_replay(settings_or_fail(), session, moment))
    if json:
        print_json(replay_object(state))
        return
    parent = state.parent
    forked = "" if parent is None else f", a fork of {literal(parent.session_id)} at version {parent.version}"
    out.print(
        f"[bold]{literal(state.session_id)}[/bold] at version {state.version}, {state.status}, "
        f"{len(state.messages)} messages{forked}",
        soft_wrap=True,
    )
    for message in state.messages:
        print_message(message)


@app.command()
def fork(
    session: Session,
    *,
    at_version: Annotated[int | None, typer.Option(help="Whose past is shared; without it, now.", min=1)] = None,
    session_id: Annotated[str | None, typer.Option(help="The fork's id; without one it is given.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="A pair, as key=value; up to 16 of them.")] = None,
    json: Json = False,
) -> None:
    """Start a session that shares another's past."""
    pairs = dict(_pair(text) for text in metadata or [])
    command = ForkCommand(
        principal=LOCAL_OPERATOR, session_id=session, at_version=at_version, fork_id=session_id, metadata=pairs
    )
    _tell_started(run(_fork(settings_or_fail(), command)), json=json)


app.command()(show)
app.command()(rerun)
app.command()(context)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="A session's id.")],
    b: Annotated[str, typer.Argument(help="Another's.")],
    *,
    after: Annotated[int | None, typer.Option(help="Only turns above this number.", min=0)] = None,
    limit: Annotated[int, typer.Option(help="How many turns at most.", min=1, max=100)] = 20,
    json: Json = False,
) -> None:
    """Compare two sessions turn by turn, from the end of their common past on."""
    page = run(_diff(settings_or_fail(), a, b, after, limit))
    if json:
        print_json(diff_answer(page).model_dump(mode="json"))
    else:
        print_diff(page)
    if page.has_more:
        err.print(f"more with --after {page.pairs[-1].number}")


@app.command("export")
def export_session(
    session: Session,
    *,
    format_: Annotated[ExportFormat, typer.Option("--format", help="events and messages can be imported again.")] = (
        ExportFormat.EVENTS
    ),
    output: Annotated[Path, typer.Option(help="The file to write; - is standard output.")] = STANDARD_OUTPUT,
    as_of_version: AsOfVersion = None,
    as_of_position: AsOfPosition = None,
    as_of: AsOfTime = None,
) -> None:
    """Write a session to a file: its events as JSON Lines, OpenAI's messages, or Markdown to read."""
    moment = _moment(as_of_version, as_of_position, as_of)
    try:
        run(_export(settings_or_fail(), session, moment, format_, output))
    except BrokenPipeError:
        sys.stderr.close()  # whoever read standard output has had enough; nothing more can be said
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}")


@app.command("import")
def import_session(
    file: Annotated[Path, typer.Argument(help="An export of events or messages; - is standard input.")],
    *,
    format_: Annotated[ImportFormat | None, typer.Option("--format", help="Without it, the first line tells.")] = None,
    session_id: Annotated[str | None, typer.Option(help="The session's id; without one it is given.")] = None,
    json: Json = False,
) -> None:
    """Start a session with the conversation of a file; the log records that it was imported, and from what."""
    settings = settings_or_fail()
    try:
        read = read_session_file(
            _read(file), format_, read_events_file, RandomIds(), CheckedImages(ImageFetcher("data"))
        )
    except ImportRefused as error:
        fail(f"{file}: {error.message}")
    _tell_started(run(_import(settings, read, session_id)), json=json)


def _moment(version: int | None, position: int | None, time: str | None) -> AsOf:
    return AsOf(version=version, position=position, time_us=time_us("--as-of", time))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        fail(f"--metadata {text}: write it as key=value", ExitCode.USAGE)
    return key, value


def _read(file: Path) -> bytes:
    try:
        with sys.stdin.buffer if file == STANDARD_OUTPUT else file.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", ExitCode.USAGE)
    if len(data) > FILE_BYTES_MAX:
        fail(f"{file} has more than {FILE_BYTES_MAX} bytes", ExitCode.USAGE)
    return data


def _tell_started(state: SessionState, *, json: bool) -> None:
    if json:
        print_json(session_answer(state).model_dump(mode="json"))
        return
    out.print(f"{literal(state.session_id)}: {len(state.messages)} messages", soft_wrap=True)


async def _replay(settings: Settings, session: str, moment: AsOf) -> SessionState:
    async with opened_sessions(settings) as recorded:
        return await recorded.replay.at(LOCAL_OPERATOR, session, moment)


async def _fork(settings: Settings, command: ForkCommand) -> SessionState:
    async with opened_sessions(settings) as recorded:
        return await recorded.fork.run(command)


async def _diff(settings: Settings, a: str, b: str, after: int | None, limit: int) -> SessionDiff:
    async with opened_sessions(settings) as recorded:
        return await recorded.diff.page(LOCAL_OPERATOR, a, b, after=after, limit=limit)


async def _import(settings: Settings, file: SessionFile, session_id: str | None) -> SessionState:
    async with opened_sessions(settings) as recorded:
        return await recorded.imports.run(ImportCommand(principal=LOCAL_OPERATOR, file=file, session_id=session_id))


async def _export(settings: Settings, session: str, moment: AsOf, format_: ExportFormat, output: Path) -> None:
    async with opened_sessions(settings) as recorded:
        export = await recorded.export.open(LOCAL_OPERATOR, session, moment)
        with whole_output(output) as file:
            if format_ is ExportFormat.MESSAGES:
                file.write(messages_file(export.state))
            elif format_ is ExportFormat.MARKDOWN:
                file.write(markdown_file(export.state))
            else:
                async for page in recorded.export.events(export):
                    file.write(b"".join(map(event_line, page)))


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.add_typer(app, name="sessions")
    root.command("replay")(show)
