"""``manent sessions context``: what exactly a model saw, rendered again by a running server."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from manent.app.cli.output import ExitCode, literal, out, print_json
from manent.app.cli.server import Url, ask, connected

COLORS = {"matches": "green", "differs": "red", "unavailable": "yellow"}


def context(
    completion: Annotated[str, typer.Argument(help="The completion's id, as chatcmpl-…")],
    *,
    url: Url = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a completion's prompt; exit code 1 where it does not render as it was recorded."""
    with connected(url) as client:
        found = ask(client, "GET", f"/v1/chat/completions/{quote(completion, safe='')}/context")
    if json:
        print_json(found)
    else:
        _print(found)
    if found["verdict"] != "matches":
        raise typer.Exit(ExitCode.NO)


def _print(found: dict[str, Any]) -> None:
    verdict = found["verdict"]
    changed = f"; changed since: {', '.join(found['changed'])}" if found["changed"] else ""
    problem = f": {found['problem']['message']}" if found["problem"] else ""
    left_out = f", {len(found['dropped'])} left out" if found["dropped"] else ""
    out.print(
        f"[bold]{literal(found['id'])}[/bold] by {literal(found['model'])}: {len(found['messages'])} messages"
        f"{left_out}, {found['prompt_tokens']} tokens; the prompt [{COLORS[verdict]}]{verdict}[/]"
        f"{literal(changed + problem)}",
        soft_wrap=True,
    )
    if found["prompt"] is not None:
        out.print(literal(found["prompt"]["text"]), soft_wrap=True)
