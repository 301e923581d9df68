"""What some of mlx-lm's architectures get wrong in a batch, and how it is kept from answers.

Found, and watched, by ``tests/integration/test_architectures.py``: prompts of unlike lengths answer as they do alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
from mlx_lm.models import gemma2

from manent.adapters.inference.batch_limits import BatchLimits

_PADDING_READERS = frozenset({"mamba", "jamba", "nemotron_h", "recurrent_gemma", "rwkv7", "baichuan_m1"})
"""They take the padding of a batch of prompts into their state: prompts are evaluated one by one."""
_LONERS = frozenset({"afm7"})
"""They give all rows of a batch the position of the longest one: every request is evaluated alone."""
_MASK_DIMENSIONS = 4


def batch_limits(model: Any, limits: BatchLimits) -> BatchLimits:
    """The limits within which a model's answers do not depend on who else is in the batch."""
    architecture = type(model).__module__.rpartition(".")[2]
    if architecture in _LONERS:
        return replace(limits, prefill_sequences=1, decode_sequences=1)
    return replace(limits, prefill_sequences=1) if architecture in _PADDING_READERS else limits


def mend(model: Any) -> None:
    """Mend the model's classes, for this process."""
    if isinstance(model, gemma2.Model) and not hasattr(gemma2.Attention, "mended"):
        gemma2.Attention.__call__ = _with_rows_apart(gemma2.Attention.__call__)  # type: ignore[method-assign]  # to mend
        gemma2.Attention.mended = True


def _with_rows_apart(attend: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """Gemma 2 splits scores by groups of heads, and lays a mask of rows over the groups where there are as many."""

    def call(self: Any, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
        if isinstance(mask, mx.array) and mask.ndim == _MASK_DIMENSIONS and self.repeats > 1:
            mask = mx.expand_dims(mask, 2)
        return attend(self, x, mask, cache)

    return call
