"""The entries of ``models.toml``: which keys there are, and what is wrong with a file, in words that name the place."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from manent.domain.embedding import ModelType

RESERVED_IDS = frozenset({"memory"})
"""What ``/v1/models/`` has another use for."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]
Gigabytes = Annotated[float, msgspec.Meta(gt=0, le=100_000)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=31_536_000)]


class RegistryError(Exception):
    """``models.toml`` cannot be used; the message names the file, the place in it, and what would be right."""


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sampling parameters for requests that name none."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 1.0
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    max_tokens: Tokens | None = None


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of ``[[models]]``."""

    id: Name
    path: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    type: ModelType = ModelType.LLM
    context_length: Tokens | None = None
    aliases: tuple[Name, ...] = ()
    memory_gb: Gigabytes | None = None
    auto_load: bool = False
    pin: bool = False
    idle_timeout_s: Seconds | None = None
    fallback: tuple[Name, ...] = ()
    adapter: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    draft: Name | None = None
    draft_tokens: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    shards: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    hosts: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    defaults: Defaults = Defaults()


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    models: tuple[ModelEntry, ...] = ()


def checked_file(file: Path, content: dict[str, Any]) -> File:
    """The file's content in its types; msgspec names the place of a wrong value as ``$.models[0].type``."""
    _check_keys(file, "the file", content, File)
    entries = content.get("models", [])
    if not isinstance(entries, list):
        raise RegistryError(f"{file}: models is one table; write [[models]] with two brackets for each model")
    for number, entry in enumerate(entries):
        if isinstance(entry, dict):
            where = f"models[{number}] ({entry.get('id', 'without an id')})"
            _check_keys(file, where, entry, ModelEntry)
            _check_type(file, where, entry)
            if isinstance(defaults := entry.get("defaults"), dict):
                _check_keys(file, f"{where}.defaults", defaults, Defaults)
    try:
        return msgspec.convert(content, File)
    except msgspec.ValidationError as error:
        raise RegistryError(f"{file}: {error}") from error


def _check_keys(file: Path, where: str, table: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    known = struct.__struct_fields__
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known) or f"; known keys are {', '.join(known)}"
            raise RegistryError(f"{file}: {where} has an unknown key {key!r}{hint}")


def _check_type(file: Path, where: str, entry: dict[str, Any]) -> None:
    if (kind := entry.get("type", ModelType.LLM)) not in list(ModelType):
        known = ", ".join(repr(known.value) for known in ModelType)
        raise RegistryError(f"{file}: {where} has type {kind!r}; this version serves types {known}")
    if kind == ModelType.EMBEDDING and (of_chats := {"adapter", "defaults"} & entry.keys()):
        raise RegistryError(f"{file}: {where} has {' and '.join(sorted(of_chats))}, which only models for chats have")
    for key in ("adapter", "draft", "draft_tokens", "shards", "hosts") if kind != ModelType.LLM else ():
        if key in entry:
            raise RegistryError(f"{file}: {where} has {key}; only models of type 'llm' can have it")


def check_names(file: Path, entries: Iterable[ModelEntry]) -> dict[str, str]:
    """The id that each id and alias leads to."""
    taken: dict[str, str] = {}
    for entry in entries:
        if entry.id in RESERVED_IDS:
            raise RegistryError(f"{file}: the id {entry.id!r} is taken by /v1/models/{entry.id}; choose another")
        for name in (entry.id, *entry.aliases):
            if name in taken:
                raise RegistryError(
                    f"{file}: the name {name!r} is given twice, by {taken[name]!r} and {entry.id!r}; "
                    "ids and aliases must all differ"
                )
            taken[name] = entry.id
    return taken


def check_fallbacks(file: Path, entries: Iterable[ModelEntry], names: Mapping[str, str]) -> None:
    """Every fallback is a model of the file, and no model falls back to itself, also not over others."""
    next_ids: dict[str, list[str]] = {}
    types = {entry.id: entry.type for entry in entries}
    for entry in entries:
        for name in entry.fallback:
            if name not in names:
                raise RegistryError(
                    f"{file}: the fallback {name!r} of {entry.id!r} is no model{did_you_mean(name, names)}"
                )
            if types[names[name]] is not entry.type:
                raise RegistryError(f"{file}: the fallback {name!r} of {entry.id!r} is of another type")
        next_ids[entry.id] = [names[name] for name in entry.fallback]
    done: set[str] = set()
    for model_id in next_ids:
        if cycle := _cycle(next_ids, [model_id], done):
            raise RegistryError(f"{file}: fallbacks go in a circle: {' -> '.join(cycle)}; take one of them out")


def check_drafts(file: Path, entries: Iterable[ModelEntry], names: Mapping[str, str]) -> None:
    """Every draft model is another model of the file, for chats, as its folder is; nothing is asked of it in shards."""
    by_id = {entry.id: entry for entry in entries}
    for entry in by_id.values():
        where = f"{file}: {entry.id!r}"
        if entry.draft_tokens is not None and entry.draft is None:
            raise RegistryError(f"{where} has draft_tokens and no draft; name the model that proposes them")
        in_shards = entry.shards is not None or entry.hosts is not None
        for key in ("adapter", "draft") if in_shards else ():
            if getattr(entry, key) is not None:
                raise RegistryError(f"{where} has shards or hosts and {key}, which do not go together")
        if entry.draft is None:
            continue
        if entry.draft not in names:
            raise RegistryError(
                f"{where} has the draft {entry.draft!r}, which is no model{did_you_mean(entry.draft, names)}"
            )
        draft = by_id[names[entry.draft]]
        if draft is entry:
            raise RegistryError(f"{where} is its own draft; name a smaller model with the same tokenizer")
        if draft.type is not ModelType.LLM or draft.adapter is not None:
            raise RegistryError(f"{where} has the draft {entry.draft!r}; it must be of type 'llm', without an adapter")


def _cycle(next_ids: Mapping[str, list[str]], path: list[str], done: set[str]) -> list[str]:
    """The circle that ``path`` runs into, or nothing; what is in ``done`` leads into none."""
    if path[-1] in done:
        return []
    for model_id in next_ids[path[-1]]:
        if model_id in path:
            return [*path[path.index(model_id) :], model_id]
        if cycle := _cycle(next_ids, [*path, model_id], done):
            return cycle
    done.add(path[-1])
    return []


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The known names that come nearest, as the end of a message."""
    near = difflib.get_close_matches(name[:200], known, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
