"""``manent serve``."""

from __future__ import annotations

import typer

from manent.app.cli.output import fail, settings_or_fail
from manent.app.serve import StartError, serve_until_stopped


def serve() -> None:
    """Serve the OpenAI-compatible API until Ctrl-C; settings are MANENT_* variables (see .env.example)."""
    settings = settings_or_fail()
    try:
        serve_until_stopped(settings)
    except StartError as error:
        fail(str(error))


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.command("serve")(serve)
