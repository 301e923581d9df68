"""Models of a few megabytes with random weights: each answers differently, and always the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 49152,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


def make_tiny_model(folder: Path, *, starter: Path, seed: int) -> Path:
    """Write a model with the tokenizer of the starter model and weights drawn from ``seed``; its folder."""
    folder.mkdir(parents=True)
    model = Model(ModelArgs.from_dict(_CONFIG))  # type: ignore[no-untyped-call]  # mlx-lm's
    shapes: Any = tree_flatten(model.parameters())
    keys = mx.random.split(mx.random.key(seed), len(shapes))
    weights = {name: mx.random.normal(old.shape, key=key) * 0.3 for (name, old), key in zip(shapes, keys, strict=True)}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    for name in _TOKENIZER:
        if (starter / name).is_file():
            (folder / name).symlink_to(starter / name)
    return folder
