"""From tokens to text with the starter model's tokenizer: characters come out whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tokenizer_utils import load as load_tokenizer

from manent.adapters.inference.protocol import Delta, Generate, RunnerFrame
from manent.adapters.inference.sequence import GeneratedSequence
from tests.support.engines import parameters

REQUEST = Generate(id=1, token_ids=(1,), parameters=parameters(max_tokens=100))


@pytest.fixture(scope="module")
def tokenizer(starter_model: Path) -> TokenizerWrapper:
    """The starter model's tokenizer."""
    return load_tokenizer(starter_model)


@pytest.mark.parametrize("text", ["🎉 done 漢字かな", "naïve café “ok”", "👩‍👩‍👧‍👦!", "a\n\n🙂\n  b", "سلام दुनिया"])
def test_characters_that_span_tokens_come_out_whole(tokenizer: TokenizerWrapper, text: str) -> None:
    """No delta ever shows a replacement character, and together they are the text."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    sequence = GeneratedSequence(REQUEST, tokenizer.detokenizer, received_s=0.0)
    frames: list[RunnerFrame] = []
    for number, token in enumerate([*ids, tokenizer.eos_token_id]):
        frames += sequence.push(token, "stop" if number == len(ids) else None, batch_size=1)[0]
    shown = [frame.text for frame in frames if isinstance(frame, Delta)]
    assert "".join(shown) == text
    assert all("\ufffd" not in piece for piece in shown)
    assert len(ids) > len(text.split())


def test_a_character_that_never_completes_is_shown_as_such_at_the_end(tokenizer: TokenizerWrapper) -> None:
    """Only where the output is cut off inside a character does a replacement character stand for it."""
    ids = tokenizer.encode("ok 🎉", add_special_tokens=False)[:-1]
    sequence = GeneratedSequence(REQUEST, tokenizer.detokenizer, received_s=0.0)
    shown = []
    for number, token in enumerate(ids):
        frames, _ = sequence.push(token, "length" if number == len(ids) - 1 else None, batch_size=1)
        shown += [frame.text for frame in frames if isinstance(frame, Delta)]
    assert "".join(shown).startswith("ok ")
    assert "\ufffd" not in "".join(shown[:-1])
    assert "\ufffd" in shown[-1]
