"""A LoRA adapter of a model's entry: it changes the answers, and the provenance says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from manent.adapters.inference.registry import RegisteredModel
from manent.domain.errors import ModelLoadError
from tests.support.engines import CARD, answer, engine_of, parameters, supervisor_settings
from tests.support.tiny_models import make_tiny_adapter, make_tiny_model


async def test_an_adapter_changes_the_answers_and_the_provenance(starter_model: Path, tmp_path: Path) -> None:
    """The same weights with and without it are two things to an auditor."""
    folder = make_tiny_model(tmp_path / "tiny", starter=starter_model, seed=1)
    bare = RegisteredModel(card=CARD, path=folder)
    results = []
    for model in (bare, replace(bare, adapter=make_tiny_adapter(tmp_path / "adapter"))):
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
