"""Mlx-lm's architectures, whatever they keep their state in, through our own loading and generation."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from manent.adapters.inference.loading import load_model
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.model_folder import check_model_folder
from manent.adapters.inference.prefix_settings import PrefixOptions
from manent.adapters.inference.protocol import Delta, Finished, Generate
from manent.domain.generation import TokenLogprobs
from tests.support.architectures import ARCHITECTURES, make_architecture
from tests.support.model_kinds import VOCABULARY
from tests.support.tiny_batches import asking

LONG = [random.Random(5).randrange(VOCABULARY - 1) for _ in range(60)]
SHORT = [random.Random(6).randrange(VOCABULARY - 1) for _ in range(9)]
SAME = 0.02
"""How far the logarithms of probabilities may lie apart where only the rounding differs; a wrong state is far off."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_alone_together_and_warm_it_says_the_same(architecture: str, tmp_path: Path) -> None:
    """Loaded from a folder; prompts of unlike lengths beside each other, and a next turn on what was kept of one."""
    folder = make_architecture(tmp_path / "model", architecture)
    alone, together = _batch(folder, tmp_path, prefix_bytes=0), _batch(folder, tmp_path, prefix_bytes=10**8)
    (long,), (short,) = _told(alone, LONG)[0], _told(alone, SHORT)[0]
    padded, *_ = _told(alone, [0] * (len(LONG) - len(SHORT)) + SHORT)[0]
    assert padded != pytest.approx(short, abs=SAME)  # or the comparison says nothing
    both, _ = _told(together, LONG, SHORT)
    assert both == [pytest.approx(long, abs=SAME), pytest.approx(short, abs=SAME)]
    next_turn = [*LONG, *(int(token) for token, _ in _pairs(long)), 9, 8, 7]
    (cold,), _ = _told(alone, next_turn)
    (warm,), reused = _told(together, next_turn)
    assert warm == pytest.approx(cold, abs=SAME)
    assert reused >= len(LONG) - 1


def _batch(folder: Path, work: Path, *, prefix_bytes: int) -> TextBatch:
    prefix = PrefixOptions(folder=work / "prefix", model="m", memory_bytes=prefix_bytes, disk_bytes=0)
    return load_model(folder, check_model_folder(folder), digest_folder=work, prefix=prefix).batch


def _told(batch: TextBatch, *prompts: Sequence[int]) -> tuple[list[list[float]], int]:
    """For each prompt the tokens of its answer, each followed by its log probability; and how many were reused."""
    for number, prompt in enumerate(prompts):
        assert batch.add(_asking(number, prompt), received_s=time.monotonic()) == []
    told: list[list[float]] = [[] for _ in prompts]
    reused = 0
    while batch.active:
        for frame in batch.step():
            if isinstance(frame, Delta):
                told[frame.id] += [number for token in frame.logprobs for number in _numbers(token)]
            elif isinstance(frame, Finished):
                reused += frame.usage.cached_tokens
    assert [len(numbers) for numbers in told] == [16] * len(prompts)
    return told, reused


def _asking(number: int, prompt: Sequence[int]) -> Generate:
    """Varied by its temperature; nothing ends before its time."""
    return asking(
        number,
        prompt,
        temperature=1.0,
        seed=3,
        logprobs=True,
        logit_bias={VOCABULARY - 1: -100.0},
    )


def _numbers(token: TokenLogprobs) -> tuple[float, float]:
    return float(token.chosen.token_id), token.chosen.logprob


def _pairs(told: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(told[::2], told[1::2], strict=True))
