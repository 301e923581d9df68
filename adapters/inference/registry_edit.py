"""Changes of ``models.toml`` that keep what its author wrote: comments, order, spelling. All of it or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manent.adapters.inference.model_folder import check_adapter_folder, check_model_folder, model_type_of
from manent.adapters.inference.registry import DEFAULT_ALIAS, parse_registry
from manent.adapters.inference.registry_entries import RegistryError
from manent.adapters.inference.starter import STARTER_ID
from manent.domain.embedding import ModelType

_TABLE = re.compile(r"^\s*\[")
_MODEL = re.compile(r"^\s*\[\[\s*models\s*\]\]\s*(#.*)?$")
_PIN = re.compile(r"^(\s*pin\s*=\s*)(?:true|false)(.*)$")

# What holds without a file would not hold any more beside another entry, so it is written down.
_FIRST = f'[[models]]\nid = "{STARTER_ID}"\naliases = ["{DEFAULT_ALIAS}"]\n'


def add_model(
    file: Path,
    models_folder: Path,
    *,
    path: Path,
    model_id: str,
    aliases: Sequence[str] = (),
    adapter: Path | None = None,
    vision: bool = False,
) -> None:
    """Add an entry for the model in the folder ``path``, with a LoRA adapter's folder if given, at the file's end.

    With ``vision`` it reads images, which its configuration alone does not tell for sure.

    Raises:
        RegistryError: the file is wrong, would become wrong, or cannot be written; it stands as it was.
        ModelFolderError: a folder does not hold what it should.
    """
    folder = path.expanduser().absolute()
    config = check_model_folder(folder)
    model_type = ModelType.VLM if vision else model_type_of(config)
    entry = [f"id = {_quoted(model_id)}", f"path = {_quoted(_named(folder, models_folder))}"]
    if model_type is not ModelType.LLM:
        entry.append(f"type = {_quoted(model_type)}")
    if aliases:
        entry.append(f"aliases = [{', '.join(map(_quoted, aliases))}]")
    if adapter is not None:
        adapter = adapter.expanduser().absolute()
        check_adapter_folder(adapter)
        entry.append(f"adapter = {_quoted(_named(adapter, models_folder))}")
    text = _read(file)
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    _write(file, models_folder, f"{text}{gap}[[models]]\n" + "\n".join(entry) + "\n")


def set_pin(file: Path, models_folder: Path, *, model_id: str, pinned: bool) -> None:
    """Set ``pin`` of the entry whose id is ``model_id``.

    Raises:
        RegistryError: there is no such entry, the file is wrong, or it cannot be written; it stands as it was.
    """
    text = _read(file)
    wanted = _parsed(text, file)
    entry = next((entry for entry in wanted.get("models", []) if entry.get("id") == model_id), None)
    if entry is None:
        raise RegistryError(f"{file} has no model {model_id!r}")
    entry["pin"] = pinned
    changed = _with_pin(text.splitlines(keepends=True), model_id, pinned=pinned)
    if _parsed(changed, file) != wanted:
        raise RegistryError(f"{file} is written in a way that cannot be changed safely here; set pin by hand")
    _write(file, models_folder, changed)


def _with_pin(lines: list[str], model_id: str, *, pinned: bool) -> str:
    """The text with ``pin`` set in the entry of this id; wherever that is not certain, any text."""
    starts = [number for number, line in enumerate(lines) if _MODEL.match(line)]
    for start in starts:
        end = next((n for n in range(start + 1, len(lines)) if _TABLE.match(lines[n])), len(lines))
        with contextlib.suppress(tomllib.TOMLDecodeError):
            if tomllib.loads("".join(lines[start + 1 : end])).get("id") != model_id:
                continue
            word = "true" if pinned else "false"
            for number in range(start + 1, end):
                if found := _PIN.match(lines[number].rstrip("\n")):
                    lines[number] = f"{found[1]}{word}{found[2]}\n"
                    return "".join(lines)
            lines.insert(start + 1, f"pin = {word}\n")
            return "".join(lines)
    return "".join(lines)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _FIRST
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"{file} cannot be read: {error}") from error


def _parsed(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"{file} is not valid TOML: {error}") from error


def _write(file: Path, models_folder: Path, text: str) -> None:
    """Replace the file, after what it will say was found to be right; a link stays a link."""
    parse_registry(text, file, models_folder)
    target = file.resolve()
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            if target.exists():
                Path(temporary).chmod(target.stat().st_mode & 0o777)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RegistryError(f"{file} cannot be written: {error.strerror}") from error


def _named(folder: Path, models_folder: Path) -> str:
    """A folder as an entry names it."""
    return str(folder.relative_to(models_folder) if folder.is_relative_to(models_folder) else folder)


def _quoted(text: str) -> str:
    """A TOML basic string; those of JSON are among them, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
