"""The root command, and the list of all others."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

INTERRUPTED = 130
# Each command's module, which registers itself. Only the one that is called is imported: the database's and the web
# server's libraries take a second, which `manent chat` and `manent --version` need not wait for.
MODULES = {
    "serve": "serve",
    "chat": "chat",
    "sessions": "sessions",
    "replay": "sessions",
    "verify": "verify",
    "events": "log",
    "log": "audit",
    "export": "export",
    "sql": "sql",
    "models": "models",
    "db": "db",
    "keys": "keys",
    "projections": "projections",
    "webhooks": "webhooks",
    "batches": "batches",
    "doctor": "doctor",
    "smoke": "smoke",
}


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (typer's callback)
    if wanted:
        typer.echo(f"manent {version('manent')}")
        raise typer.Exit


def root(
    context: typer.Context,
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="@FILE|-",
            help="API key for a server: of a file, or - for standard input. Without it, MANENT_API_KEY.",
        ),
    ] = None,
) -> None:
    """Conversations with MLX models, every one an append-only record."""
    if api_key is not None:
        from manent.app.cli.credentials import forget_key, take_key  # noqa: PLC0415 (most commands need none of it)

        take_key(api_key)
        context.call_on_close(forget_key)


def build_app(called: str | None) -> typer.Typer:
    """The command line, with the command that is called, or with all of them where that is not known."""
    app = typer.Typer(name="manent", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
    app.callback()(root)
    names = (
        [MODULES[called]] if called in MODULES else ([] if called == "--version" else dict.fromkeys(MODULES.values()))
    )
    for name in names:
        import_module(f"manent.app.cli.{name}").register(app)
    return app


def main() -> None:
    """Run the command line; what it writes is for its user alone, and Ctrl-C ends it without a traceback."""
    os.umask(0o077)
    with contextlib.suppress(KeyboardInterrupt):
        _run()
        return
    sys.exit(INTERRUPTED)


def _run() -> None:
    build_app(sys.argv[1] if len(sys.argv) > 1 else None)()
