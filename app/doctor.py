"""What is wrong with this machine or its configuration, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from dotenv import dotenv_values

from manent.adapters.inference.installing import verify_model
from manent.adapters.inference.openblas import find_openblas, openblas_advice
from manent.adapters.inference.registry import load_registry
from manent.adapters.inference.registry_entries import RegistryError
from manent.adapters.inference.starter import STARTER_ID
from manent.adapters.store.database import database_name
from manent.adapters.store.migrate import MigrationError, current_revision, latest_revision
from manent.app.doctor_listen import examine_listening
from manent.app.doctor_log import examine_log
from manent.app.doctor_machine import examine_machine
from manent.app.doctor_records import examine_records
from manent.app.findings import Finding, Verdict, warning
from manent.app.home import HomeError, data_folders, prepare_folder
from manent.app.settings import ENV_FILE, PREFIX, Settings

DISK_FREE_BYTES_MIN = 1_000_000_000
OTHERS = 0o077
SECRET_VARIABLES = tuple(f"{PREFIX}{name}" for name in ("JWT_SECRET", "DATABASE_URL", "REDIS_URL", "API_KEY"))


def examine(settings: Settings) -> Iterator[Finding]:
    """Run every check, in the order in which they matter."""
    yield _settings()
    yield _python()
    yield _mlx()
    if sys.platform == "linux":
        yield _openblas()
    yield _home(settings)
    yield _disk(settings)
    yield _database(settings)
    yield from examine_log(settings)
    yield from _models(settings)
    yield from examine_machine(settings)
    yield from examine_listening(settings)
    yield from examine_records(settings)


def _settings() -> Finding:
    """Wrong ones end the command before it begins; their values are nobody's business."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = sorted(known & {*os.environ, *dotenv_values(ENV_FILE)})
    return Finding(check="settings", verdict=Verdict.OK, detail=", ".join(given) or "all are the defaults")


def _python() -> Finding:
    return Finding(check="python", verdict=Verdict.OK, detail=sys.version.split()[0])


def _mlx() -> Finding:
    missing = [name for name in ("mlx", "mlx_lm") if importlib.util.find_spec(name) is None]
    if missing:
        return Finding(
            check="mlx",
            verdict=Verdict.FAILURE,
            detail=f"{', '.join(missing)} cannot be imported",
            advice="run `make install`; MLX has wheels for macOS on Apple silicon and for Linux",
        )
    return Finding(check="mlx", verdict=Verdict.OK, detail="mlx and mlx_lm are installed")


def _openblas() -> Finding:
    found = find_openblas()
    if found is None:
        return Finding(
            check="openblas",
            verdict=Verdict.WARNING,
            detail="not found: prompts are read about 20 times slower, answers written at half the speed",
            advice=openblas_advice(),
        )
    return Finding(check="openblas", verdict=Verdict.OK, detail=str(found))


def _home(settings: Settings) -> Finding:
    try:
        prepare_folder(settings.home)
    except HomeError as error:
        return Finding(check="home", verdict=Verdict.FAILURE, detail=str(error), advice="set MANENT_HOME")
    if settings.home.stat().st_mode & OTHERS:
        advice = f"run `chmod go= {settings.home}`: conversations and keys are in it"
        return Finding(check="home", verdict=Verdict.WARNING, detail=f"others can read {settings.home}", advice=advice)
    if (elsewhere := _readable_elsewhere(settings)) is not None:
        return warning("home", f"others can read {elsewhere}", f"run `chmod go= {elsewhere}`")
    return Finding(check="home", verdict=Verdict.OK, detail=str(settings.home))


def _readable_elsewhere(settings: Settings) -> Path | None:
    """What lies outside of the home and is not for everybody: a database of its own place, passwords in ``.env``."""
    env_file = Path(ENV_FILE).absolute()
    if any(dotenv_values(env_file).get(name) for name in SECRET_VARIABLES) and env_file.stat().st_mode & OTHERS:
        return env_file
    database = settings.database
    if isinstance(database, Path) and database.exists() and not database.is_relative_to(settings.home):
        is_open = database.stat().st_mode & OTHERS and database.parent.stat().st_mode & OTHERS
        return database if is_open else None
    return None


def _disk(settings: Settings) -> Finding:
    folders = [next(folder for folder in (path, *path.parents) if folder.exists()) for path in data_folders(settings)]
    free_bytes, folder = min((shutil.disk_usage(folder).free, folder) for folder in folders)
    detail = f"{free_bytes / 1e9:.1f} GB free in {folder}"
    if free_bytes < DISK_FREE_BYTES_MIN:
        advice = "free some space: when the disk is full, nothing can be recorded and every request is refused"
        return Finding(check="disk", verdict=Verdict.WARNING, detail=detail, advice=advice)
    return Finding(check="disk", verdict=Verdict.OK, detail=detail)


def _database(settings: Settings) -> Finding:
    name = database_name(settings.database)
    try:
        current, latest = current_revision(settings.database), latest_revision()
    except MigrationError as error:
        advice = "restore a backup" if isinstance(settings.database, Path) else "correct MANENT_DATABASE_URL"
        return Finding(check="database", verdict=Verdict.FAILURE, detail=str(error), advice=advice)
    if current is None:
        return Finding(check="database", verdict=Verdict.OK, detail=f"{name} will be made by the first start")
    if current != latest:
        advice = "run `manent db upgrade`, or use the Manent that made it"
        detail = f"{name} is at revision {current}, this version needs {latest}"
        return Finding(check="database", verdict=Verdict.WARNING, detail=detail, advice=advice)
    return Finding(check="database", verdict=Verdict.OK, detail=f"{name}, revision {current}")


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        cards = load_registry(settings.models_file, settings.models_folder).cards()
    except RegistryError as error:
        yield Finding(check="models", verdict=Verdict.FAILURE, detail=str(error), advice="correct models.toml")
        return
    for card in cards:
        advice = "run `manent models install`" if card.model_id == STARTER_ID else "correct its path in models.toml"
        if not card.available:
            yield Finding(
                check=f"model {card.model_id}", verdict=Verdict.WARNING, detail="its folder is missing", advice=advice
            )
        elif card.model_id == STARTER_ID:
            yield _starter(settings)
        else:
            yield Finding(check=f"model {card.model_id}", verdict=Verdict.OK, detail="there")


def _starter(settings: Settings) -> Finding:
    folder = settings.models_folder / STARTER_ID
    if problems := verify_model(folder):
        advice = f"remove {folder} and run `manent models install`"
        return Finding(check=f"model {STARTER_ID}", verdict=Verdict.FAILURE, detail="; ".join(problems), advice=advice)
    return Finding(check=f"model {STARTER_ID}", verdict=Verdict.OK, detail="there, every file as it was written")
