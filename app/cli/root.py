"""The root command, and the list of all others."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from manent.app.cli import chat, db, doctor, log, models, serve

app = typer.Typer(
    name="manent",
    help="Conversations with MLX models, every one an append-only record.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("serve")(serve.serve)
app.command("chat")(chat.chat)
app.command("replay")(log.replay)
app.command("events")(log.events)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(db.app, name="db")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (typer's callback)
    if wanted:
        typer.echo(f"manent {version('manent')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Conversations with MLX models, every one an append-only record."""


def main() -> None:
    """Run the command line."""
    app()
