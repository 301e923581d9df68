"""``manent smoke``."""

from __future__ import annotations

from typing import Annotated

import typer

from manent.app.cli.output import ExitCode, literal, out, print_json
from manent.app.cli.server import connected
from manent.app.smoke import Smoke

MARKS = {"passed": "[green]passed[/]", "skipped": "[yellow]skipped[/]", "failed": "[red]failed[/]"}


def smoke(
    url: Annotated[str | None, typer.Argument(help="Address of the server; without it, this machine's.")] = None,
    *,
    model: Annotated[str, typer.Option(help="The model to talk to.")] = "default",
    timeout_s: Annotated[float, typer.Option(min=0.1, help="How long an answer may take, seconds.")] = 120.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a step.")] = False,
) -> None:
    """Try a live server: health, models, a chat, a stream, a session, embeddings, events; exit code 1 if one fails."""
    failed = False
    with connected(url, timeout_s=timeout_s) as client:
        for result in Smoke(client, model=model).run():
            failed |= result.verdict == "failed"
            if json:
                print_json(result)
            else:
                line = f"{MARKS[result.verdict]} {result.step} ({result.seconds:.3f} s): {literal(result.detail)}"
                out.print(line, soft_wrap=True)
    if failed:
        raise typer.Exit(ExitCode.NO)


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.command("smoke")(smoke)
