"""A draft model of a model's entry, in a real runner: what the provenance says of it; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manent.adapters.inference.memory import estimated_bytes
from manent.adapters.inference.registry import RegisteredModel
from manent.domain.errors import ModelLoadError
from manent.domain.output_shape import FormatKind, OutputFormat, OutputShape
from tests.support.engines import CARD, answer, engine_of, parameters, supervisor_settings
from tests.support.tiny_models import make_tiny_model

CITY = OutputShape(
    format=OutputFormat(
        kind=FormatKind.JSON_SCHEMA,
        definition='{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}',
    )
)


@pytest.mark.long
async def test_the_starter_model_says_the_same_with_itself_in_4_bits_as_a_draft(
    starter_model: Path, four_bit_model: Path, tmp_path: Path
) -> None:
    """A deterministic request goes without. The log tells which draft it was and what for; its memory counts."""
    model = RegisteredModel(card=CARD, path=starter_model, draft=four_bit_model, draft_tokens=2)
    async with engine_of([model], supervisor_settings(tmp_path)) as engine:
        with_draft = await answer(engine, "Count from one to ten.", parameters(max_tokens=12))
        without = await answer(engine, "Count from one to ten.", parameters(max_tokens=12, deterministic=True))
        ruled = [
            await answer(engine, "Name a city.", parameters(max_tokens=10, shape=CITY, deterministic=alone))
            for alone in (False, True)
        ]
    assert ruled[0].choices == ruled[1].choices
    assert (ruled[0].provenance.draft is None, ruled[1].provenance.draft) == (False, None)
    assert with_draft.choices == without.choices
    assert with_draft.usage == without.usage
    assert without.provenance.draft is None
    use = with_draft.provenance.draft
    assert use is not None
    assert use.weights_digest not in {"", with_draft.provenance.weights_digest}
    assert 0 < use.accepted_tokens <= use.proposed_tokens
    alone, both = estimated_bytes(starter_model), estimated_bytes(starter_model, four_bit_model)
    assert alone is not None
    assert both is not None
    assert both > alone


async def test_a_draft_with_another_tokenizer_is_named(starter_model: Path, tmp_path: Path) -> None:
    """Its token ids would mean something else."""
    folder = make_tiny_model(tmp_path / "tiny", starter=starter_model, seed=1)
    other = make_tiny_model(tmp_path / "other", starter=starter_model, seed=2)
    tokenizer = json.loads((starter_model / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["Paris"], vocabulary["London"] = vocabulary.get("London", 49150), vocabulary.get("Paris", 49151)
    (other / "tokenizer.json").unlink()
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    model = RegisteredModel(card=CARD, path=folder, draft=other)
    async with engine_of([model], supervisor_settings(tmp_path)) as engine:
        with pytest.raises(ModelLoadError, match="other has another tokenizer than the model"):
            await answer(engine, "Say something.", parameters(max_tokens=1))


async def test_a_missing_draft_is_named(starter_model: Path, tmp_path: Path) -> None:
    """The model is not served without it, as if nothing had been said."""
    folder = make_tiny_model(tmp_path / "tiny", starter=starter_model, seed=1)
    model = RegisteredModel(card=CARD, path=folder, draft=tmp_path / "nowhere")
    async with engine_of([model], supervisor_settings(tmp_path)) as engine:
        with pytest.raises(ModelLoadError, match="nowhere does not exist"):
            await answer(engine, "Say something.", parameters(max_tokens=1))
