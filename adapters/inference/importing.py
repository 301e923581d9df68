"""Quantising a model on import: a smaller copy, in a folder of its own."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.utils import load_model, quantize_model, save_model

from manent.adapters.inference.embedding_model import load_encoder
from manent.adapters.inference.model_facts import quantization_of
from manent.adapters.inference.model_folder import ModelFolderError, check_model_folder, model_type_of
from manent.domain.embedding import ModelType

GROUP_SIZES = (64, 32)
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.gguf", "*.onnx", ".*")


def quantize_folder(source: Path, target: Path, *, bits: int) -> str:
    """Write the model in ``source`` to the new folder ``target`` with weights of ``bits`` bits; how, in words.

    Groups are of 64 weights that share a scale, or of 32 where 64 does not divide every row. Rows that 32 does not
    divide either stay as they are. Everything but weights and configuration is copied byte for byte.

    Raises:
        ModelFolderError: ``source`` holds no model, or one that is or cannot be quantised; or ``target`` exists.
        OSError: ``target`` cannot be written.
    """
    config = check_model_folder(source)
    if (already := quantization_of(config)) is not None:
        raise ModelFolderError(f"{source} is quantised already ({already}); add it without --quantize")
    if target.exists():
        raise ModelFolderError(f"{target} exists already; choose another id, or move it away")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".part", dir=target.parent) as work:
        folder = Path(work) / "model"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*_WEIGHTS))
        model, config = _loaded(source, config)
        group_size = _group_size(source, model)
        with contextlib.redirect_stdout(io.StringIO()):  # mlx-lm prints
            model, config = quantize_model(model, config, group_size, bits)
        save_model(folder, model, donate_model=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        folder.rename(target)
    mx.clear_cache()
    return quantization_of(config) or ""


def _loaded(source: Path, config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model with its weights still on disk, and its configuration."""
    try:
        if model_type_of(config) is ModelType.EMBEDDING:
            return load_encoder(source, config), config
        model, config = load_model(source, lazy=True)[:2]
    except ValueError as error:
        raise ModelFolderError(f"{source} could not be loaded: {error}") from error
    return model, config


def _group_size(source: Path, model: nn.Module) -> int:
    rows = [
        module.weight.shape[-1]
        for _, module in model.named_modules()
        if hasattr(module, "to_quantized") and "weight" in module
    ]
    if not any(row % GROUP_SIZES[-1] == 0 for row in rows):
        raise ModelFolderError(f"{source} cannot be quantised: no row of its weights divides by {GROUP_SIZES[-1]}")
    return next((size for size in GROUP_SIZES if all(row % size == 0 for row in rows)), GROUP_SIZES[-1])
