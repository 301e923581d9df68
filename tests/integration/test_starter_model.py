"""The starter model is the model it claims to be: its tokens, its template, what it predicts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manent.adapters.inference.installing import verify_model
from manent.adapters.inference.openblas import runner_environment

ASK = """
import json, sys, mlx.core as mx, mlx_lm
model, tokenizer = mlx_lm.load(sys.argv[1])
said = mlx_lm.generate(model, tokenizer, tokenizer.encode("The capital of France is"), max_tokens=4)
logits = model(mx.array([tokenizer.encode(sys.argv[2])]))[0, -1].astype(mx.float32)
log_probabilities = (logits - mx.logsumexp(logits)).tolist()
top = sorted(range(len(log_probabilities)), key=log_probabilities.__getitem__)[-3:]
answer = {"said": said, "next": {token: log_probabilities[token] for token in top}}
answer |= {"eos": sorted(tokenizer.eos_token_ids), "detokenizer": type(tokenizer.detokenizer).__name__}
print(json.dumps(answer))
"""
STORY = (
    "Once upon a time there was a little girl who lived in a village near the forest. Whenever she went out, the "
    "little girl wore a red riding cloak, so everyone in the village called her Little Red"
)
# How llama.cpp goes on from the GGUF itself (POST /completion with n_probs): ".", " Riding" and "cap". Its activations
# are rounded to 8 bits, which is why ours are near and not equal. With q and k left permuted "Paris" still comes out
# of a short prompt, but the story goes on with a comma.
LLAMA_CPP_NEXT = {"30": -0.574, "44453": -1.822, "4600": -2.342}
# What llama.cpp (2026-10) makes of the GGUF itself: POST /tokenize with parse_special. Ten of 4,543 that were compared.
LLAMA_CPP_TOKENS = [
    ("The capital of France is", [504, 3575, 282, 4649, 314]),
    ("  leading and trailing  ", [216, 2899, 284, 35079, 256]),
    ("tabs\tand\n\nnew lines \r\n x", [100, 7366, 197, 397, 198, 198, 2241, 3204, 216, 2738, 1792]),
    ("don't DON'T", [12420, 982, 422, 2154, 23, 68]),
    ("1,000 v2.0", [33, 28, 32, 32, 32, 386, 34, 30, 32]),
    ("日本語 한국어", [23274, 115, 40993, 179, 120, 248, 216, 33085, 246, 181, 130, 251, 183, 240, 129]),
    ("👩‍👩", [10813, 235, 119, 321, 231, 10813, 235, 119]),
    ("<|im_start|>user\nhi<|im_end|>\n", [1, 4093, 198, 6004, 2, 198]),
    ("Ⅷ ½", [173, 223, 117, 216, 16738]),
    ("\u00a0\u2003\u3000nbsp   ", [15442, 321, 221, 12109, 218, 94, 32093, 333]),
]
# Bytes for which the model has no token: some control characters, and the planes of Unicode that nobody uses.
UNKNOWN = "\x04\x06\x13\x14\x16\x1d"


@pytest.fixture(scope="session")
def tokenizer(four_bit_model: Path) -> Any:
    """The tokenizer as transformers loads it."""
    from transformers import AutoTokenizer  # noqa: PLC0415 -- slow to import

    return AutoTokenizer.from_pretrained(four_bit_model)


def ask(model: Path) -> dict[str, Any]:
    """What mlx-lm makes of a model in a process like a runner: a greedy answer, and how the story goes on."""
    command = [sys.executable, "-c", ASK, str(model), STORY]
    ended = subprocess.run(
        command, env=runner_environment(os.environ), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def test_the_model_answers(starter_model: Path) -> None:
    """Weights and tokenizer fit together: the model knows the capital of France, and predicts what llama.cpp does."""
    assert verify_model(starter_model) == []
    answer = ask(starter_model)
    assert "Paris" in answer["said"]
    assert answer["next"] == pytest.approx(LLAMA_CPP_NEXT, abs=0.3)
    assert (answer["eos"], answer["detokenizer"]) == ([2], "BPEStreamingDetokenizer")


def test_four_bit_weights_answer_the_same(four_bit_model: Path) -> None:
    """The 4-bit form of macOS says the same, is a quarter of the size, and is made where it is asked for."""
    config = json.loads((four_bit_model / "config.json").read_bytes())
    assert config["quantization"] == {"group_size": 32, "bits": 4, "model.embed_tokens": {"group_size": 32, "bits": 8}}
    assert (four_bit_model / "model.safetensors").stat().st_size < 120e6
    answer = ask(four_bit_model)
    assert "Paris" in answer["said"]
    assert answer["next"] == pytest.approx(LLAMA_CPP_NEXT, abs=0.3)


@pytest.mark.parametrize(("text", "expected"), LLAMA_CPP_TOKENS, ids=range(len(LLAMA_CPP_TOKENS)))
def test_tokens_are_those_of_llama_cpp(tokenizer: Any, text: str, expected: list[int]) -> None:
    """The converted tokenizer cuts a text where the original implementation of the file's format cuts it."""
    assert tokenizer.encode(text) == expected


@settings(max_examples=200)
@given(text=st.text(st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cs"], exclude_characters=UNKNOWN)))
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    """Text of any script, emoji included, comes back from its tokens unchanged."""
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_are_tokens_of_their_own(tokenizer: Any) -> None:
    """Numbers are read digit by digit, as the model was trained."""
    assert [tokenizer.decode([token]) for token in tokenizer.encode("20260")] == ["2", "0", "2", "6", "0"]


def test_special_tokens_are_single_and_end_a_turn(tokenizer: Any) -> None:
    """All control tokens of the file are one token each and never shown; the end of a turn ends generation."""
    special = tokenizer.convert_ids_to_tokens(range(17))
    assert special[:4] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
    assert tokenizer.encode("".join(special)) == list(range(17))
    assert tokenizer.decode([*range(17), 504], skip_special_tokens=True) == "The"
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)


def test_the_chat_template_renders(tokenizer: Any) -> None:
    """A conversation becomes the prompt that the model was tuned on, open for the assistant's turn."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_importing_the_installer_is_cheap() -> None:
    """A command line that only might install the model does not pay for MLX."""
    program = "import sys, manent.adapters.inference.starter; print('mlx' in sys.modules, 'tokenizers' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "False False\n"
