"""Importing models: quantised copies, adapters on them, and installed ones; as an operator does it, and then used."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from manent.adapters.inference.embedding_model import EmbeddingModel, load_embedding_model
from manent.adapters.inference.importing import quantize_folder
from manent.adapters.inference.installing import verify_model
from manent.adapters.inference.minilm import MINILM_ID
from manent.adapters.inference.model_folder import ModelFolderError, check_model_folder
from manent.adapters.inference.registry import load_registry
from tests.support.commands import manent
from tests.support.engines import engine_of, parameters, request, supervisor_settings, user
from tests.support.tiny_models import make_tiny_adapter, make_tiny_model


async def test_a_model_is_quantised_and_adapted_on_import(starter_model: Path, tmp_path: Path) -> None:
    """Two commands; both models answer, and the provenance says how each was made."""
    home = tmp_path / "home"
    source = make_tiny_model(tmp_path / "tiny", starter=starter_model, seed=1)
    adapter = make_tiny_adapter(tmp_path / "adapter")
    plain = manent("models", "add", str(source), "--id", "org/q8", "--quantize", "8", home=home)
    adapted = manent(
        *("models", "add", str(source), "--id", "q4", "--quantize", "4", "--adapter", str(adapter)), home=home
    )
    assert (plain.returncode, adapted.returncode) == (0, 0), plain.stderr + adapted.stderr
    assert "affine 4-bit, group 64" in adapted.stdout
    again = manent("models", "add", str(source), "--id", "q4", "--quantize", "4", home=home)
    assert (again.returncode, "has a model 'q4' already" in again.stderr) == (2, True)
    registry = load_registry(home / "models.toml", home / "models")
    assert [model.card.model_id for model in registry.models] == ["smollm2-135m-instruct", "org/q8", "q4"]
    found = {}
    async with engine_of(registry.models[1:], supervisor_settings(tmp_path)) as engine:
        for model_id in ("org/q8", "q4"):
            prompt = await engine.render(model_id, [user("Say something.")])
            outputs = [output async for output in engine.generate(request(prompt, parameters(), model_id=model_id))]
            found[model_id] = outputs[-1].provenance  # type: ignore[union-attr]  # the last one is the result
    assert [found[model_id].quantization for model_id in ("org/q8", "q4")] == [
        "affine 8-bit, group 64",
        "affine 4-bit, group 64",
    ]
    assert found["org/q8"].tokenizer_digest == found["q4"].tokenizer_digest
    assert found["org/q8"].weights_digest != found["q4"].weights_digest


@pytest.mark.parametrize(
    ("shape", "group_size", "left"),
    [
        ({}, 64, ()),
        ({"hidden_size": 96}, 32, ()),
        ({"intermediate_size": 100}, 32, ("model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj")),
    ],
)
def test_groups_fit_the_rows(
    starter_model: Path, tmp_path: Path, shape: dict[str, Any], group_size: int, left: tuple[str, ...]
) -> None:
    """64 weights share a scale, or 32; rows that divide by neither stay as they are, and the copy still loads."""
    from mlx_lm.utils import load  # noqa: PLC0415 (takes seconds)

    source = make_tiny_model(tmp_path / "tiny", starter=starter_model, seed=1, **shape)
    target = tmp_path / "models" / "copy"
    assert quantize_folder(source, target, bits=4) == f"affine 4-bit, group {group_size}"
    model = load(str(target))[0]
    assert model(mx.array([[1, 2, 3]])).shape == (1, 3, 49152)
    names = set(mx.load(str(target / "model.safetensors")))
    for name in left:
        assert f"{name}.weight" in names
        assert f"{name}.scales" not in names
    assert "model.layers.0.self_attn.q_proj.scales" in names
    assert [path.name for path in target.parent.iterdir()] == ["copy"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (target / name).read_bytes() == (source / name).read_bytes()


def test_what_cannot_be_quantised_is_left_alone(starter_model: Path, tmp_path: Path) -> None:
    """Quantised already, no row that divides, a place that is taken: a reason, and nothing is left behind."""
    odd = make_tiny_model(
        tmp_path / "odd", starter=starter_model, seed=1, hidden_size=40, intermediate_size=40, num_key_value_heads=4
    )
    models = tmp_path / "models"
    with pytest.raises(ModelFolderError, match="no row of its weights divides by 32"):
        quantize_folder(odd, models / "odd", bits=4)
    source = make_tiny_model(tmp_path / "tiny", starter=starter_model, seed=1)
    quantize_folder(source, models / "copy", bits=4)
    with pytest.raises(ModelFolderError, match=r"is quantised already .affine 4-bit, group 64."):
        quantize_folder(models / "copy", models / "again", bits=8)
    with pytest.raises(ModelFolderError, match="exists already"):
        quantize_folder(source, models / "copy", bits=8)
    config = json.loads((source / "config.json").read_text()) | {"model_type": "no_such_model"}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match=r"could not be loaded: .*no_such_model"):
        quantize_folder(source, models / "unknown", bits=4)
    assert [path.name for path in models.iterdir()] == ["copy"]


def test_a_quantised_embedding_model_means_the_same(embedding_model: Path, tmp_path: Path) -> None:
    """8-bit vectors point where those of the whole weights do."""
    assert quantize_folder(embedding_model, tmp_path / "copy", bits=8) == "affine 8-bit, group 64"
    tokens = [[101, 1996, 4633, 2003, 8403, 2651, 1012, 102]]
    whole, small = (_vector(_loaded(folder, tmp_path), tokens) for folder in (embedding_model, tmp_path / "copy"))
    assert sum(a * b for a, b in zip(whole, small, strict=True)) > 0.99


def test_the_embedding_model_is_installed_by_name(embedding_model: Path, tmp_path: Path) -> None:
    """It is registered once, as what it is, beside the starter model; its weights are those that were published."""
    assert verify_model(embedding_model) == []
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / MINILM_ID).symlink_to(embedding_model)
    for _ in range(2):
        done = manent("models", "install", MINILM_ID, home=home)
        assert done.returncode == 0, done.stderr
    cards = load_registry(home / "models.toml", home / "models").cards()
    assert [(card.model_id, card.type, card.context_length) for card in cards][1:] == [(MINILM_ID, "embedding", 256)]
    listed = manent("models", "list", "--json", home=home)
    assert [json.loads(line)["type"] for line in listed.stdout.splitlines()] == ["llm", "embedding"]
    refused = manent("models", "install", "gpt-5", home=home)
    assert (refused.returncode, MINILM_ID in refused.stderr) == (2, True)


def _loaded(folder: Path, digests: Path) -> EmbeddingModel:
    return load_embedding_model(folder, check_model_folder(folder), digest_folder=digests)


def _vector(model: EmbeddingModel, tokens: list[list[int]]) -> tuple[float, ...]:
    row = bytes(memoryview(model.pooling.finished(model.vectors(tokens))))  # type: ignore[arg-type]  # a buffer
    return struct.unpack(f"<{model.dimensions}f", row)
