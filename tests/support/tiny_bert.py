"""Embedding models of a few hundred kilobytes, with random weights and a tokenizer of letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from manent.adapters.inference.bert import Bert, read_bert_config

CONFIG = {
    "model_type": "bert",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
POOLING = "sentence_transformers.models."


def make_tiny_bert(folder: Path, *, modes: tuple[str, ...] = (), normalizes: bool = True, **config: Any) -> Path:
    """Write a model, with ``modules.json`` where pooling ``modes`` are given; its folder."""
    folder.mkdir(parents=True)
    whole = CONFIG | config
    mx.random.seed(3)
    shapes: Any = tree_flatten(Bert(read_bert_config(whole)).parameters())
    weights = {name: mx.random.normal(old.shape) * 0.5 for name, old in shapes}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(whole))
    _write_tokenizer(folder / "tokenizer.json")
    if modes:
        modules = [{"path": "", "type": f"{POOLING}Transformer"}, {"path": "1_Pooling", "type": f"{POOLING}Pooling"}]
        if normalizes:
            modules.append({"path": "2_Normalize", "type": f"{POOLING}Normalize"})
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        wanted = {f"pooling_mode_{mode}": True for mode in modes}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(wanted | {"word_embedding_dimension": 32}))
    return folder


def _write_tokenizer(file: Path) -> None:
    letters = {letter: number for number, letter in enumerate("PCSU abcdefghijklmnopqrstuvwxyz")}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="U"))  # noqa: S106 (no password)
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="C $A S", special_tokens=[("C", 1), ("S", 2)])
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(file))
