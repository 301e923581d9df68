"""The model registry: ``models.toml``, checked completely and explained where it is wrong."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from manent.adapters.inference.model_folder import (
    ModelFolderError,
    context_length_of,
    input_length_of,
    read_config,
)
from manent.adapters.inference.starter import STARTER_ID
from manent.domain.embedding import ModelType
from manent.domain.errors import ModelNotFound
from manent.domain.generation import ModelCard

DEFAULT_ALIAS = "default"
RESERVED_IDS = frozenset({"memory"})
"""What ``/v1/models/`` has another use for."""
BYTES_PER_GB = 1_000_000_000
_CONTEXT_LENGTH_UNKNOWN = 2048
"""For a model whose folder is missing or silent: small enough to be true of every model in use."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]
Gigabytes = Annotated[float, msgspec.Meta(gt=0, le=100_000)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=31_536_000)]


class RegistryError(Exception):
    """``models.toml`` cannot be used; the message names the file, the place in it, and what would be right."""


class _Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sampling parameters for requests that name none."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 1.0
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    max_tokens: Tokens | None = None


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    defaults: _Defaults = _Defaults()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    models: tuple[_Model, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """A model, the folder that holds it, and how it is to be kept.

    Attributes:
        memory_bytes: what is set aside for it; None leaves that to measurements and estimates.
        idle_timeout_s: how long it may stay loaded and unused; 0 is for ever, None what holds for all models.
        fallback: ids of models that answer in its place where it cannot be used, in their order.
        adapter: the folder of a LoRA adapter that is applied to it.
    """

    card: ModelCard
    path: Path
    memory_bytes: int | None = None
    auto_load: bool = False
    pinned: bool = False
    idle_timeout_s: float | None = None
    fallback: tuple[str, ...] = ()
    adapter: Path | None = None


class Registry:
    """The models that requests may name, by id and by alias."""

    def __init__(self, models: Sequence[RegisteredModel]) -> None:
        self.models = tuple(models)
        self._by_name = {name: model for model in models for name in (model.card.model_id, *model.card.aliases)}

    def cards(self) -> tuple[ModelCard, ...]:
        """All cards in the order of the file, each with whether its folder is there now."""
        return tuple(replace(model.card, available=_available(model.path)) for model in self.models)

    def resolve(self, name: str) -> ModelCard:
        """The card of an id or alias; ModelNotFound, with the names that come nearest, if there is none."""
        model = self._by_name.get(name)
        if model is None:
            raise ModelNotFound(f"there is no model {name!r:.200}{_did_you_mean(name, self._by_name)}")
        return replace(model.card, available=_available(model.path))

    def chain(self, name: str) -> tuple[str, ...]:
        """The ids to try for an id or alias: the model itself, its fallbacks, and theirs, each once."""
        chain: list[str] = []
        waiting = [self.resolve(name).model_id]
        while waiting:
            model_id = waiting.pop(0)
            if model_id not in chain:
                chain.append(model_id)
                waiting += [self._by_name[fallback].card.model_id for fallback in self._by_name[model_id].fallback]
        return tuple(chain)


def load_registry(file: Path, models_folder: Path) -> Registry:
    """The registry that a file describes; without the file, the starter model alone.

    Args:
        file: ``models.toml``.
        models_folder: where relative paths, and models without a path, are looked for.

    Raises:
        RegistryError: the file cannot be read or is wrong.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        starter = _Model(id=STARTER_ID, aliases=(DEFAULT_ALIAS,))
        return Registry([_registered(starter, models_folder)])
    except OSError as error:
        raise RegistryError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RegistryError(f"{file} is not UTF-8: {error}") from error
    return parse_registry(text, file, models_folder)


def parse_registry(text: str, file: Path, models_folder: Path) -> Registry:
    """The registry that a text describes; ``file`` is where it stands, or will.

    Raises:
        RegistryError: the text is wrong.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"{file} is not valid TOML: {error}") from error
    entries = _checked(file, content).models
    if not entries:
        raise RegistryError(f"{file} names no models: add a [[models]] entry, or remove the file for the starter model")
    names = _check_names(file, entries)
    _check_fallbacks(file, entries, names)
    return Registry([_registered(entry, models_folder) for entry in entries])


def _checked(file: Path, content: dict[str, Any]) -> _File:
    """The file's content in its types; msgspec names the place of a wrong value as ``$.models[0].type``."""
    _check_keys(file, "the file", content, _File)
    entries = content.get("models", [])
    if not isinstance(entries, list):
        raise RegistryError(f"{file}: models is one table; write [[models]] with two brackets for each model")
    for number, entry in enumerate(entries):
        if isinstance(entry, dict):
            where = f"models[{number}] ({entry.get('id', 'without an id')})"
            _check_keys(file, where, entry, _Model)
            _check_type(file, where, entry)
            if isinstance(defaults := entry.get("defaults"), dict):
                _check_keys(file, f"{where}.defaults", defaults, _Defaults)
    try:
        return msgspec.convert(content, _File)
    except msgspec.ValidationError as error:
        raise RegistryError(f"{file}: {error}") from error


def _check_keys(file: Path, where: str, table: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    known = struct.__struct_fields__
    for key in table:
        if key not in known:
            hint = _did_you_mean(key, known) or f"; known keys are {', '.join(known)}"
            raise RegistryError(f"{file}: {where} has an unknown key {key!r}{hint}")


def _check_type(file: Path, where: str, entry: dict[str, Any]) -> None:
    if (kind := entry.get("type", ModelType.LLM)) not in list(ModelType):
        known = ", ".join(repr(known.value) for known in ModelType)
        raise RegistryError(f"{file}: {where} has type {kind!r}; this version serves types {known}")
    if kind == ModelType.EMBEDDING and (of_chats := {"adapter", "defaults"} & entry.keys()):
        raise RegistryError(f"{file}: {where} has {' and '.join(sorted(of_chats))}, which only models for chats have")
    if kind == ModelType.VLM and "adapter" in entry:
        raise RegistryError(f"{file}: {where} has an adapter; only models of type 'llm' can have one")


def _check_names(file: Path, entries: Iterable[_Model]) -> dict[str, str]:
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


def _check_fallbacks(file: Path, entries: Iterable[_Model], names: Mapping[str, str]) -> None:
    """Every fallback is a model of the file, and no model falls back to itself, also not over others."""
    next_ids: dict[str, list[str]] = {}
    types = {entry.id: entry.type for entry in entries}
    for entry in entries:
        for name in entry.fallback:
            if name not in names:
                raise RegistryError(
                    f"{file}: the fallback {name!r} of {entry.id!r} is no model{_did_you_mean(name, names)}"
                )
            if types[names[name]] is not entry.type:
                raise RegistryError(f"{file}: the fallback {name!r} of {entry.id!r} is of another type")
        next_ids[entry.id] = [names[name] for name in entry.fallback]
    done: set[str] = set()
    for model_id in next_ids:
        if cycle := _cycle(next_ids, [model_id], done):
            raise RegistryError(f"{file}: fallbacks go in a circle: {' -> '.join(cycle)}; take one of them out")


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


def _registered(entry: _Model, models_folder: Path) -> RegisteredModel:
    path = models_folder / Path(entry.path or entry.id).expanduser()
    context_length, created_at_s = _looked_up(path, entry.type)
    return RegisteredModel(
        path=path,
        memory_bytes=None if entry.memory_gb is None else int(entry.memory_gb * BYTES_PER_GB),
        auto_load=entry.auto_load,
        pinned=entry.pin,
        idle_timeout_s=entry.idle_timeout_s,
        fallback=entry.fallback,
        adapter=None if entry.adapter is None else models_folder / Path(entry.adapter).expanduser(),
        card=ModelCard(
            model_id=entry.id,
            context_length=entry.context_length or context_length or _CONTEXT_LENGTH_UNKNOWN,
            created_at_s=created_at_s,
            aliases=entry.aliases,
            available=_available(path),
            default_temperature=entry.defaults.temperature,
            default_top_p=entry.defaults.top_p,
            default_max_tokens=entry.defaults.max_tokens,
            type=entry.type,
        ),
    )


def _looked_up(folder: Path, model_type: ModelType) -> tuple[int | None, int]:
    """Context length and creation time of a model's folder; a broken one is explained when it is loaded."""
    try:
        config = read_config(folder)
        is_embedding = model_type is ModelType.EMBEDDING
        length = input_length_of(folder, config) if is_embedding else context_length_of(config)
        return length, int((folder / "config.json").stat().st_mtime)
    except (ModelFolderError, OSError):
        return None, 0


def _available(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _did_you_mean(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name[:200], known, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
