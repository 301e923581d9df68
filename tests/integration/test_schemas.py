"""Every output satisfies its schema, however the model would rather answer: many schemas, a random model, hot."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mlx_lm.generate import BatchGenerator
from mlx_lm.utils import load

from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.output_rules import OutputRules
from manent.adapters.inference.protocol import Delta, Failed, Finished, Generate, RunnerFrame
from manent.adapters.inference.token_text import token_bytes_of
from manent.domain.generation import FinishReason
from manent.domain.output_shape import FormatKind, OutputFormat, OutputShape
from tests.support.json_schemas import SCHEMAS
from tests.support.sampling import parameters
from tests.support.tiny_models import make_tiny_model

HOT = 1.5
TOKENS = 48
AT_ONCE = 24


@pytest.fixture(scope="module")
def batch(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> TextBatch:
    """A model that knows nothing: what keeps to a schema is the grammar's doing alone."""
    folder = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", starter=starter_model, seed=3)
    model, tokenizer = load(str(folder))[:2]
    return TextBatch(
        model,
        eos_token_ids=tokenizer.eos_token_ids,
        vocabulary_size=49152,
        new_detokenizer=lambda: tokenizer.detokenizer,
        token_bytes=token_bytes_of(tokenizer),
        rules=OutputRules(tokenizer, vocabulary_size=49152, eos_token_ids=tokenizer.eos_token_ids),
    )


def asking(number: int, schema: object, *, seed: int) -> Generate:
    """A request for an instance of a schema."""
    shape = OutputShape(format=OutputFormat(kind=FormatKind.JSON_SCHEMA, definition=json.dumps(schema)))
    asked = parameters(max_tokens=TOKENS, temperature=HOT, seed=seed, shape=shape)
    return Generate(id=number, token_ids=(5, 6, 7), parameters=asked)


def outputs(batch: TextBatch, requests: Iterable[Generate]) -> dict[int, tuple[str, FinishReason]]:
    """The texts, and why each ended."""
    frames: list[RunnerFrame] = []
    waiting = list(requests)
    while waiting or batch.active:
        while waiting and batch.active < AT_ONCE:
            frames += batch.add(waiting.pop(), received_s=time.monotonic())
        frames += batch.step()
    assert [frame for frame in frames if isinstance(frame, Failed)] == []
    texts: dict[int, str] = {}
    for frame in frames:
        if isinstance(frame, Delta):
            texts[frame.id] = texts.get(frame.id, "") + frame.text
    return {frame.id: (texts[frame.id], frame.finish_reasons[0]) for frame in frames if isinstance(frame, Finished)}


def is_valid(text: str, schema: Any) -> bool:
    """Whether a text is JSON that satisfies a schema, formats included."""
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
    return validator.is_valid(json.loads(text))


def test_all_outputs_validate_or_were_cut_off(batch: TextBatch) -> None:
    """At temperature 1.5, twice each, mixed in batches: what ends by itself is valid, and the rest says ``length``."""
    assert len(SCHEMAS) >= 60
    asked = {number: SCHEMAS[number % len(SCHEMAS)] for number in range(2 * len(SCHEMAS))}
    found = outputs(batch, (asking(number, schema, seed=number) for number, schema in asked.items()))
    assert set(found) == set(asked)
    ended = {number: text for number, (text, reason) in found.items() if reason is FinishReason.STOP}
    wrong = [(asked[number], text) for number, text in ended.items() if not is_valid(text, asked[number])]
    assert wrong == []
    assert all(reason is FinishReason.LENGTH for number, (_, reason) in found.items() if number not in ended)
    assert len(ended) > len(found) * 0.8


def test_a_grammar_rules_its_own_row_only(batch: TextBatch) -> None:
    """A plain request says the same alone as among others that are ruled."""
    plain = Generate(id=1000, token_ids=(9, 8, 7), parameters=parameters(max_tokens=12))
    alone = outputs(batch, [plain])
    among = outputs(batch, [*(asking(number, SCHEMAS[40 + number], seed=number) for number in range(5)), plain])
    assert among[1000] == alone[1000]


def test_a_grammar_is_followed_on_after_a_failed_evaluation(batch: TextBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said before stands, and what comes behind it still makes it valid."""
    schema = SCHEMAS[45]
    steps = iter(range(1000))
    evaluate: Any = BatchGenerator.next

    def fail_once(generator: Any) -> Any:
        if next(steps) == 8:
            raise RuntimeError("a kernel failed")
        return evaluate(generator)

    monkeypatch.setattr(BatchGenerator, "next", fail_once)
    found = outputs(batch, [asking(number, schema, seed=number) for number in range(3)])
    assert len(found) == 3
    assert all(reason is FinishReason.LENGTH or is_valid(text, schema) for text, reason in found.values())
    assert any(reason is FinishReason.STOP for _, reason in found.values())
