"""``manent db``: the database's schema; ``backup.py`` has its backups."""

from __future__ import annotations

from typing import Annotated

import typer

from manent.adapters.store.database import database_name
from manent.adapters.store.migrate import MigrationError, current_revision, latest_revision
from manent.app.cli.backup import backup_database, check_database, restore_database
from manent.app.cli.database import bring_up_to_date
from manent.app.cli.output import ExitCode, fail, out, print_json, settings_or_fail

app = typer.Typer(help="The database: create, upgrade, back up, restore and check it.", no_args_is_help=True)


@app.command("upgrade")
def upgrade_database() -> None:
    """Create the database, or bring it to this version's schema."""
    settings = settings_or_fail()
    bring_up_to_date(settings)
    out.print(f"{database_name(settings.database)} is at revision {latest_revision()}")


@app.command()
def status(*, json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the database's revision; exit code 1 if it is not this version's."""
    settings = settings_or_fail()
    try:
        current, latest = current_revision(settings.database), latest_revision()
    except MigrationError as error:
        fail(str(error))
    name = database_name(settings.database)
    if json:
        print_json({"path": name, "revision": current, "latest": latest})
    else:
        out.print(f"{name}: revision {current or 'none'}, latest {latest}")
    if current != latest:
        raise typer.Exit(ExitCode.NO)


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    app.command("backup")(backup_database)
    app.command("restore")(restore_database)
    app.command("check")(check_database)
    root.add_typer(app, name="db")
