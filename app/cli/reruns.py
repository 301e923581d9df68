"""``manent sessions rerun``: answers generated again by a running server, followed until they are there."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from manent.app.cli.output import ExitCode, err, literal, out, print_json
from manent.app.cli.server import Url, ask, connected

POLL_S = 0.5
ENDED = {"completed", "failed", "interrupted"}


def rerun(
    session: Annotated[str, typer.Argument(help="The session's id.")],
    *,
    from_version: Annotated[int, typer.Option(help="What follows it is generated again; 1 is everything.", min=1)],
    model: Annotated[str | None, typer.Option(help="Model id or alias; without it, each turn's own.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Without it, as recorded.", min=0, max=2)] = None,
    top_p: Annotated[float | None, typer.Option(help="Without it, as recorded.", max=1)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Without it, as recorded.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Without it, as recorded.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Without it, as recorded; up to 4.")] = None,
    session_id: Annotated[str | None, typer.Option(help="The rerun's id; without one it is given.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    url: Url = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Generate the answers behind a version again, in a fork; exit code 1 where that did not complete.

    It goes on in the server when this command is stopped.
    """
    asked = {
        "from_version": from_version,
        "model": model,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
        "stop": stop or None,
        "session_id": session_id,
    }
    members = {name: value for name, value in asked.items() if value is not None}
    with connected(url) as client:
        state = ask(client, "POST", f"/v1/sessions/{quote(session, safe='')}/rerun", json=members)
        if not detach:
            state = _followed(client, state, quiet=json)
    _tell(state, json=json)
    if state["status"] in ENDED - {"completed"}:
        raise typer.Exit(ExitCode.NO)


def _followed(client: httpx.Client, state: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    path = f"/v1/sessions/{quote(state['session_id'], safe='')}/rerun"
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=err, transient=True, disable=quiet) as bars:
        bar = bars.add_task(state["status"], total=state["turns_total"])
        while state["status"] not in ENDED:
            time.sleep(POLL_S)
            state = ask(client, "GET", path)
            bars.update(bar, description=state["status"], completed=state["turns_done"])
    return state


def _tell(state: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(state)
        return
    problem = "" if state["error"] is None else f": {state['error']['message']}"
    turns = f"{state['turns_done']} of {state['turns_total']} turns"
    out.print(literal(f"{state['session_id']}: {state['status']}, {turns}{problem}"), soft_wrap=True)
