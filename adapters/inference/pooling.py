"""From a state for each token to one vector, as a sentence-transformers model says in ``modules.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from manent.adapters.inference.model_folder import ModelFolderError

MODULES = "modules.json"
_MODES = ("cls", "max", "mean", "mean_sqrt_len")
"""In the order in which sentence-transformers puts them side by side, where a model has several."""
_KEYS = {f"pooling_mode_{mode}_token{'' if mode == 'cls' else 's'}": mode for mode in _MODES}
_LENGTH_MIN = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """How a model's vectors are made."""

    modes: tuple[str, ...] = ("mean",)
    normalizes: bool = True

    def __call__(self, states: mx.array, mask: mx.array) -> mx.array:
        """(batch, length, hidden) and (batch, length) to (batch, dimensions), in float32; lengths are left as they are.

        ``mask`` is True at tokens, False at padding.
        """
        states, there = states.astype(mx.float32), mask[:, :, None]
        counts = there.sum(axis=1)
        total = mx.where(there, states, 0.0).sum(axis=1)
        pooled = {
            "cls": lambda: states[:, 0],
            "max": lambda: mx.where(there, states, -mx.inf).max(axis=1),
            "mean": lambda: total / counts,
            "mean_sqrt_len": lambda: total / mx.sqrt(counts),
        }
        return mx.concatenate([pooled[mode]() for mode in self.modes], axis=1)

    def finished(self, vectors: mx.array) -> mx.array:
        """Vectors of (perhaps fewer) dimensions at the length that the model's have."""
        if not self.normalizes:
            return vectors
        return vectors / mx.maximum(mx.linalg.norm(vectors, axis=1, keepdims=True), _LENGTH_MIN)


def read_pooling(folder: Path) -> Pooling:
    """What a model's folder says; without ``modules.json`` the mean of all tokens, at length 1.

    Raises:
        ModelFolderError: it asks for what is not known here.
    """
    if not (folder / MODULES).is_file():
        return Pooling()
    modes: tuple[str, ...] = ()
    normalizes = False
    for module in _read(folder / MODULES, list):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            modes = _modes(folder / str(module.get("path", "")) / "config.json")
        elif kind == "Normalize":
            normalizes = True
        elif kind != "Transformer":
            raise ModelFolderError(f"{folder / MODULES} has a module {kind!r}, which Manent cannot evaluate")
    if not modes:
        raise ModelFolderError(f"{folder / MODULES} has no Pooling module; its vectors would be those of single tokens")
    return Pooling(modes=modes, normalizes=normalizes)


def _modes(file: Path) -> tuple[str, ...]:
    config = _read(file, dict)
    wanted = {config["pooling_mode"]} if isinstance(config.get("pooling_mode"), str) else set()
    wanted |= {_KEYS.get(key, key) for key, value in config.items() if value is True and key.startswith("pooling_mode")}
    if unknown := sorted(wanted - set(_MODES)):
        raise ModelFolderError(f"{file} asks for pooling that is not known here: {', '.join(unknown)}")
    return tuple(mode for mode in _MODES if mode in wanted)


def _read(file: Path, kind: type) -> Any:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{file} cannot be read: {error}; download the model again") from error
    if not isinstance(content, kind):
        raise ModelFolderError(f"{file} is not what sentence-transformers writes; download the model again")
    return content
