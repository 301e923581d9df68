"""Batches on the tiny models, with a prefix cache, in this process; and short ways to ask them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_lm.models.cache import make_prompt_cache

from manent.adapters.inference.batch_limits import BatchLimits
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.prefix_cache import PrefixLimits
from manent.adapters.inference.prefix_disk import PrefixDisk
from manent.adapters.inference.prefix_reuse import PrefixReuse
from manent.adapters.inference.protocol import Delta, Finished, Generate, PrefixScope, RunnerFrame
from manent.domain.caching import CacheUse
from tests.support.model_kinds import VOCABULARY
from tests.support.sampling import parameters

ANN = PrefixScope(tenant="aa", conversation="c1", durable=True)
BOB = PrefixScope(tenant="bb", conversation="c2", durable=True)


class Silence:
    """A detokenizer that reads nothing: tokens are what these tests look at."""

    last_segment = ""

    def add_token(self, token: int) -> None:
        """Take a token in."""

    def finalize(self) -> None:
        """Nothing waits."""


def tiny_disk(folder: Path, *, identity: str = "i", bytes_max: int = 10**9, **more: Any) -> PrefixDisk:
    """A disk tier."""
    return PrefixDisk(folder, model="m", identity=identity, bytes_max=bytes_max, **more)


def tiny_batch(
    model: Any, *, disk: PrefixDisk | None = None, memory_bytes: int = 10**8, limits: BatchLimits | None = None
) -> TextBatch:
    """A batch with a prefix cache; 0 bytes for one without."""
    return TextBatch(
        model,
        eos_token_ids=[],
        vocabulary_size=VOCABULARY,
        new_detokenizer=Silence,
        token_bytes=lambda _: b"",
        limits=limits or BatchLimits(prefill_chunk_tokens=16),
        prefixes=PrefixReuse(
            lambda: make_prompt_cache(model),
            limits=PrefixLimits(memory_bytes=memory_bytes, keep_min_tokens=4),
            disk=disk,
        ),
    )


def asking(
    number: int, prompt: Sequence[int], *, scope: PrefixScope | None = ANN, history_tokens: int = 0, **effective: Any
) -> Generate:
    """A request."""
    return Generate(
        id=number,
        token_ids=tuple(prompt),
        parameters=parameters(**{"max_tokens": 8, **effective}),
        prefix=scope,
        history_tokens=history_tokens,
    )


def answers(batch: TextBatch, *requests: Generate) -> dict[int, tuple[list[int], int, CacheUse]]:
    """The tokens, the reused tokens and what the cache did, of each of some requests that run together."""
    for request in requests:
        assert batch.add(request, received_s=time.monotonic()) == []
    frames: list[RunnerFrame] = []
    while batch.active:
        frames += batch.step()
    finished = {frame.id: frame for frame in frames if isinstance(frame, Finished)}
    return {
        number: (
            _tokens([frame for frame in frames if isinstance(frame, Delta) and frame.id == number]),
            frame.usage.cached_tokens,
            frame.cache,
        )
        for number, frame in finished.items()
    }


def answer(batch: TextBatch, request: Generate) -> tuple[list[int], int, CacheUse]:
    """The same of one request alone."""
    return answers(batch, request)[request.id]


def _tokens(deltas: Sequence[Delta]) -> list[int]:
    """Those of the first choice, then those of the second, and so on."""
    return [token for delta in sorted(deltas, key=lambda delta: delta.index) for token in delta.token_ids]
