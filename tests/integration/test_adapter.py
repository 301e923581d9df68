"""A LoRA adapter of a model's entry: it changes the answers, and the provenance says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from manent.adapters.inference.registry import RegisteredModel
from manent.domain.errors import ModelLoadError
from tests.support.engines import CARD, answer, engine_of, parameters, supervisor_settings
from tests.support.tiny_models import make_tiny_model

RANK = 4


def make_adapter(folder: Path) -> Path:
    """An adapter that turns the last layer's values around."""
    folder.mkdir()
    config = {
        "fine_tune_type": "lora",
        "num_layers": 1,
        "lora_parameters": {"rank": RANK, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.v_proj"]},
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    layer = "model.layers.1.self_attn.v_proj"
    weights = {
        f"{layer}.lora_a": mx.random.normal((64, RANK), key=mx.random.key(1)),
        f"{layer}.lora_b": mx.random.normal((RANK, 32), key=mx.random.key(2)),
    }
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    return folder


async def test_an_adapter_changes_the_answers_and_the_provenance(starter_model: Path, tmp_path: Path) -> None:
    """The same weights with and without it are two things to an auditor."""
    folder = make_tiny_model(tmp_path / "tiny", starter=starter_model, seed=1)
    bare = RegisteredModel(card=CARD, path=folder)
    results = []
    for model in (bare, replace(bare, adapter=make_adapter(tmp_path / "adapter"))):
        async with engine_of([model], supervisor_settings(tmp_path)) as engine:
            results.append(await answer(engine, "Say something.", parameters(max_tokens=8)))
    without, with_adapter = results
    assert without.choices[0].token_ids != with_adapter.choices[0].token_ids
    assert without.provenance.weights_digest != with_adapter.provenance.weights_digest
    assert without.provenance.adapter_digest is None
    assert str(with_adapter.provenance.adapter_digest).startswith("sha256:")


async def test_a_missing_adapter_is_named(starter_model: Path, tmp_path: Path) -> None:
    """The model is not served without it, as if nothing had been said."""
    folder = make_tiny_model(tmp_path / "tiny", starter=starter_model, seed=1)
    model = RegisteredModel(card=CARD, path=folder, adapter=tmp_path / "nowhere")
    async with engine_of([model], supervisor_settings(tmp_path)) as engine:
        with pytest.raises(ModelLoadError, match=r"nowhere/adapter_config\.json is missing"):
            await answer(engine, "Say something.", parameters(max_tokens=1))
