"""``manent models``: the registry, and what the running server holds in memory; ``model_import`` has the rest."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from manent.adapters.inference.registry import load_registry
from manent.adapters.inference.registry_edit import set_pin
from manent.adapters.inference.registry_entries import RegistryError
from manent.app.cli.model_import import add, install
from manent.app.cli.output import ExitCode, err, fail, literal, out, print_json, settings_or_fail
from manent.app.cli.server import Url, answers, ask, connected
from manent.domain.errors import ModelNotFound

HELP = "Models: list and change the registry, load and unload, see what is in memory."
ANSWER_TIMEOUT_S = 30.0
LOAD_EXTRA_S = 120.0
NOTE_CHARS_MAX = 200

app = typer.Typer(help=HELP, no_args_is_help=False)
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Model = Annotated[str, typer.Argument(help="Model id or alias.")]


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
    table = Table("id", "type", "aliases", "context", "there", box=None)
    for card in cards:
        table.add_row(
            literal(card.model_id),
            card.type,
            literal(", ".join(card.aliases)),
            str(card.context_length),
            "yes" if card.available else "missing",
        )
    out.print(table)


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
    if answers(url):
        with connected(url, timeout_s=ANSWER_TIMEOUT_S) as client:
            ask(client, "POST", _path(card.model_id, "unpin" if off else "pin"))
    out.print(f"{literal(card.model_id)} is {'no longer pinned' if off else 'pinned'}")


@app.command()
def load(model: Model, *, url: Url = None, json: Json = False) -> None:
    """Have the running server load a model, and wait until it is there."""
    settings = settings_or_fail()
    # Two attempts, each with its wait for room: what the server takes at most.
    timeout_s = 2 * (settings.load_timeout_s + settings.memory_wait_s) + LOAD_EXTRA_S
    with connected(url, timeout_s=timeout_s) as client, err.status(f"loading {literal(model)}"):
        found = ask(client, "POST", _path(model, "load"))
    if json:
        print_json(found)
    else:
        out.print(f"{literal(found['id'])} is loaded and holds {_gb(found['memory_bytes'])}")


@app.command()
def unload(model: Model, *, url: Url = None, json: Json = False) -> None:
    """Have the running server unload a model that no request uses."""
    with connected(url, timeout_s=ANSWER_TIMEOUT_S) as client:
        found = ask(client, "POST", _path(model, "unload"))
    if json:
        print_json(found)
    else:
        out.print(f"{literal(found['id'])} {'is unloaded' if found['unloaded'] else 'was not in memory'}")


@app.command()
def ps(*, url: Url = None, json: Json = False) -> None:
    """Show how the models of the running server stand, and the memory that they hold."""
    with connected(url, timeout_s=ANSWER_TIMEOUT_S) as client:
        models = ask(client, "GET", "/v1/models")["data"]
        memory = ask(client, "GET", "/v1/models/memory")
    if json:
        for found in models:
            print_json(found)
        print_json(memory)
        return
    table = Table("id", "status", "memory", "requests", "since", "note", box=None)
    for found in models:
        cells = (
            found["id"],
            _status(found),
            _gb(found["memory_bytes"]),
            found["requests"],
            _since(found),
            _note(found),
        )
        table.add_row(*(literal(cell) for cell in cells))
    out.print(table)
    used_gb, models_gb, total_gb = memory["used_gb"], memory["models_gb"], memory["total_gb"]
    out.print(literal(f"{used_gb} of {models_gb} GB for models are in use; total {total_gb} GB"))


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
        (found["failure"] or "")[:NOTE_CHARS_MAX],
    )
    return "; ".join(note for note in notes if note)


def _path(model: str, action: str) -> str:
    """What is done with a model; ids may have slashes in them."""
    return f"/v1/models/{quote(model, safe='/')}/{action}"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes else ""


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    app.command()(install)
    app.command()(add)
    root.add_typer(app, name="models")
