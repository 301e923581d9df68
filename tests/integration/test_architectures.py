"""Mlx-lm's architectures, whatever they keep their state in, through our own loading and generation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from manent.adapters.inference.loading import load_model
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.model_folder import check_model_folder
from manent.adapters.inference.prefix_settings import PrefixOptions
from tests.support.architectures import ARCHITECTURES, make_architecture
from tests.support.model_kinds import VOCABULARY
from tests.support.tiny_batches import answer, answers, asking

LONG = [random.Random(5).randrange(VOCABULARY - 1) for _ in range(90)]
SHORT = LONG[50:70]
HOW: dict[str, Any] = {"temperature": 1.0, "seed": 3, "logit_bias": {VOCABULARY - 1: -100.0}}
"""Varied, and nothing ends before its time."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_alone_together_and_warm_it_says_the_same(architecture: str, tmp_path: Path) -> None:
    """Loaded from a folder; prompts of unlike lengths, the longer one in chunks, beside each other, and after it."""
    folder = make_architecture(tmp_path / "model", architecture)
    alone, together = _batch(folder, tmp_path, prefix_bytes=0), _batch(folder, tmp_path, prefix_bytes=10**8)
    expected = {number: _told(alone, number, prompt) for number, prompt in ((1, LONG), (2, SHORT))}
    assert [len(tokens) for tokens in expected.values()] == [8, 8]
    asked = [asking(1, LONG, **HOW), asking(2, SHORT, **HOW)]
    assert {number: tokens for number, (tokens, _, _) in answers(together, *asked).items()} == expected
    next_turn = [*LONG, *expected[1], 9, 8, 7]
    warm, reused, _ = answer(together, asking(3, next_turn, **HOW))
    assert warm == _told(alone, 3, next_turn)
    assert reused >= len(LONG) - 1
    assert len({*expected[1], *expected[2], *warm}) > 2  # or the comparison says nothing


def _batch(folder: Path, work: Path, *, prefix_bytes: int) -> TextBatch:
    prefix = PrefixOptions(folder=work / "prefix", model="m", memory_bytes=prefix_bytes, disk_bytes=0)
    return load_model(folder, check_model_folder(folder), digest_folder=work, prefix=prefix).batch


def _told(batch: TextBatch, number: int, prompt: list[int]) -> list[int]:
    return answer(batch, asking(number, prompt, **HOW))[0]
