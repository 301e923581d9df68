"""``manent doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from manent.app.cli.output import ExitCode, literal, out, print_json, settings_or_fail
from manent.app.doctor import examine
from manent.app.findings import Verdict

MARKS = {Verdict.OK: "[green]ok[/]", Verdict.WARNING: "[yellow]warning[/]", Verdict.FAILURE: "[red]failure[/]"}


def doctor(*, json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False) -> None:
    """Say what is wrong with this machine or configuration, and what to do; exit code 1 on a failure."""
    worst_failed = False
    for finding in examine(settings_or_fail()):
        worst_failed |= finding.verdict is Verdict.FAILURE
        if json:
            print_json(finding)
            continue
        out.print(f"{MARKS[finding.verdict]} {finding.check}: {literal(finding.detail)}", soft_wrap=True)
        if finding.advice:
            out.print(f"   [dim]→ {literal(finding.advice)}[/dim]", soft_wrap=True)
    if worst_failed:
        raise typer.Exit(ExitCode.NO)


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.command("doctor")(doctor)
