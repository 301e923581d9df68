"""The model registry: ``models.toml``, checked completely and explained where it is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from manent.adapters.inference.model_folder import (
    ModelFolderError,
    context_length_of,
    input_length_of,
    read_config,
)
from manent.adapters.inference.registry_entries import (
    ModelEntry,
    RegistryError,
    check_drafts,
    check_fallbacks,
    check_names,
    checked_file,
    did_you_mean,
)
from manent.adapters.inference.starter import STARTER_ID
from manent.domain.embedding import ModelType
from manent.domain.errors import ModelNotFound
from manent.domain.generation import ModelCard

DEFAULT_ALIAS = "default"
BYTES_PER_GB = 1_000_000_000
DRAFT_TOKENS = 3
_CONTEXT_LENGTH_UNKNOWN = 2048
"""For a model whose folder is missing or silent: small enough to be true of every model in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """A model, the folder that holds it, and how it is to be kept.

    Attributes:
        memory_bytes: what is set aside for it; None leaves that to measurements and estimates.
        idle_timeout_s: how long it may stay loaded and unused; 0 is for ever, None what holds for all models.
        fallback: ids of models that answer in its place where it cannot be used, in their order.
        adapter: the folder of a LoRA adapter that is applied to it.
        draft: the folder of a draft model, which proposes ``draft_tokens`` at once to a request that is alone.
        shards: how many processes hold a part of it each.
        hosts: mlx.launch's file of the hosts that these run on; None is this machine.
    """

    card: ModelCard
    path: Path
    memory_bytes: int | None = None
    auto_load: bool = False
    pinned: bool = False
    idle_timeout_s: float | None = None
    fallback: tuple[str, ...] = ()
    adapter: Path | None = None
    draft: Path | None = None
    draft_tokens: int = DRAFT_TOKENS
    shards: int = 1
    hosts: Path | None = None


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
            raise ModelNotFound(f"there is no model {name!r:.200}{did_you_mean(name, self._by_name)}")
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
        starter = ModelEntry(id=STARTER_ID, aliases=(DEFAULT_ALIAS,))
        return Registry([_registered(starter, models_folder, {})])
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
    entries = checked_file(file, content).models
    if not entries:
        raise RegistryError(f"{file} names no models: add a [[models]] entry, or remove the file for the starter model")
    names = check_names(file, entries)
    check_fallbacks(file, entries, names)
    check_drafts(file, entries, names)
    folders = {name: _folder(entry, models_folder) for entry in entries for name in (entry.id, *entry.aliases)}
    return Registry([_registered(entry, models_folder, folders) for entry in entries])


def _folder(entry: ModelEntry, models_folder: Path) -> Path:
    return models_folder / Path(entry.path or entry.id).expanduser()


def _registered(entry: ModelEntry, models_folder: Path, folders: Mapping[str, Path]) -> RegisteredModel:
    path = _folder(entry, models_folder)
    context_length, created_at_s = _looked_up(path, entry.type)
    return RegisteredModel(
        path=path,
        memory_bytes=None if entry.memory_gb is None else int(entry.memory_gb * BYTES_PER_GB),
        auto_load=entry.auto_load,
        pinned=entry.pin,
        idle_timeout_s=entry.idle_timeout_s,
        fallback=entry.fallback,
        adapter=None if entry.adapter is None else models_folder / Path(entry.adapter).expanduser(),
        draft=None if entry.draft is None else folders[entry.draft],
        draft_tokens=entry.draft_tokens or DRAFT_TOKENS,
        shards=entry.shards or 1,
        hosts=None if entry.hosts is None else models_folder / Path(entry.hosts).expanduser(),
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
