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


_RANK = 4


def make_tiny_model(folder: Path, *, starter: Path, seed: int, **config: Any) -> Path:
    """Write a model with the tokenizer of the starter model and weights drawn from ``seed``; its folder."""
    folder.mkdir(parents=True)
    whole = _CONFIG | config
    model = Model(ModelArgs.from_dict(whole))  # type: ignore[no-untyped-call]  # mlx-lm's
    shapes: Any = tree_flatten(model.parameters())
    keys = mx.random.split(mx.random.key(seed), len(shapes))
    weights = {name: mx.random.normal(old.shape, key=key) * 0.3 for (name, old), key in zip(shapes, keys, strict=True)}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(whole))
    for name in _TOKENIZER:
        if (starter / name).is_file():
            (folder / name).symlink_to(starter / name)
    return folder


def make_tiny_adapter(folder: Path) -> Path:
    """Write an adapter for a tiny model that turns the last layer's values around; its folder."""
    folder.mkdir()
    config = {
        "fine_tune_type": "lora",
        "num_layers": 1,
        "lora_parameters": {"rank": _RANK, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.v_proj"]},
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    layer = "model.layers.1.self_attn.v_proj"
    weights = {
        f"{layer}.lora_a": mx.random.normal((64, _RANK), key=mx.random.key(1)),
        f"{layer}.lora_b": mx.random.normal((_RANK, 32), key=mx.random.key(2)),
    }
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    return folder
