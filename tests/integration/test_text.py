"""From tokens to text with the starter model's tokenizer: characters come out whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tokenizer_utils import load as load_tokenizer

from manent.adapters.inference.protocol import Delta, Generate, RunnerFrame
from manent.adapters.inference.sequence import GeneratedRequest, GeneratedText
from manent.adapters.inference.stop_text import StopMatcher
from manent.adapters.inference.token_text import token_bytes_of
from manent.domain.generation import TokenCandidate, TokenLogprobs
from tests.support.sampling import parameters

REQUEST = Generate(id=1, token_ids=(1,), parameters=parameters(max_tokens=100))


@pytest.fixture(scope="module")
def tokenizer(starter_model: Path) -> TokenizerWrapper:
    """The starter model's tokenizer."""
    return load_tokenizer(starter_model)


def text_of(tokenizer: TokenizerWrapper) -> GeneratedText:
    """Text without stop strings."""
    return GeneratedText(tokenizer.detokenizer, StopMatcher(()))


@pytest.mark.parametrize("text", ["🎉 done 漢字かな", "naïve café “ok”", "👩‍👩‍👧‍👦!", "a\n\n🙂\n  b", "سلام दुनिया"])
def test_characters_that_span_tokens_come_out_whole(tokenizer: TokenizerWrapper, text: str) -> None:
    """No delta ever shows a replacement character, and together they are the text."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    sequence = GeneratedRequest(REQUEST, lambda: text_of(tokenizer), received_s=0.0)
    frames: list[RunnerFrame] = []
    for number, token in enumerate([*ids, tokenizer.eos_token_id]):
        frames += sequence.push(0, token, "stop" if number == len(ids) else None, batch_size=1)
    shown = [frame.text for frame in frames if isinstance(frame, Delta)]
    assert "".join(shown) == text
    assert all("\ufffd" not in piece for piece in shown)
    assert len(ids) > len(text.split())


def test_a_character_that_never_completes_is_shown_as_such_at_the_end(tokenizer: TokenizerWrapper) -> None:
    """Only where the output is cut off inside a character does a replacement character stand for it."""
    ids = tokenizer.encode("ok 🎉", add_special_tokens=False)[:-1]
    sequence = GeneratedRequest(REQUEST, lambda: text_of(tokenizer), received_s=0.0)
    shown = []
    for number, token in enumerate(ids):
        frames = sequence.push(0, token, "length" if number == len(ids) - 1 else None, batch_size=1)
        shown += [frame.text for frame in frames if isinstance(frame, Delta)]
    assert "".join(shown).startswith("ok ")
    assert "\ufffd" not in "".join(shown[:-1])
    assert "\ufffd" in shown[-1]


@pytest.mark.parametrize("text", ["🎉 done 漢字", "plain words, and  spaces\n", "naïve <|im_start|>"])
def test_the_bytes_of_tokens_are_those_of_the_text(tokenizer: TokenizerWrapper, text: str) -> None:
    """Also where a character spans tokens, and where a token is a special one."""
    token_bytes = token_bytes_of(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(token_bytes, ids)) == text.encode()
    assert token_bytes(len(tokenizer) + 5) == b""


def test_log_probabilities_of_a_character_come_with_it(tokenizer: TokenizerWrapper) -> None:
    """Those of the tokens of one character come together, as soon as it can be read."""
    ids = tokenizer.encode("🎉!", add_special_tokens=False)
    token_bytes = token_bytes_of(tokenizer)
    sequence = GeneratedRequest(REQUEST, lambda: text_of(tokenizer), received_s=0.0)
    for token in ids:
        entry = TokenLogprobs(chosen=TokenCandidate(token_id=token, token_bytes=token_bytes(token), logprob=-1.0))
        (delta,) = sequence.push(0, token, None, batch_size=1, logprobs=entry)
        assert isinstance(delta, Delta)
        assert b"".join(told.chosen.token_bytes for told in delta.logprobs) == delta.text.encode()
