"""Parameters for tests of what a runner is made of; needs no runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manent.domain.generation import SamplingParameters


def parameters(
    *,
    max_tokens: int = 16,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 1,
    stop: Sequence[str] = (),
    **others: Any,
) -> SamplingParameters:
    """Sampling parameters; greedy and short unless said otherwise."""
    return SamplingParameters(
        temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed, stop=tuple(stop), **others
    )
