"""How much a batch evaluates at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much is evaluated at once.

    Small prefill chunks let the others go on while a long prompt comes in; they are what a step's length, and so the
    delay of a cancellation, is bounded by.
    """

    decode_sequences: int = 32
    prefill_sequences: int = 8
    prefill_chunk_tokens: int = 128
    progress_interval_s: float = 1.0

    @property
    def of_mlx_lm(self) -> dict[str, Any]:
        """As mlx-lm's ``BatchGenerator`` names them."""
        return {
            "completion_batch_size": self.decode_sequences,
            "prefill_batch_size": self.prefill_sequences,
            "prefill_step_size": self.prefill_chunk_tokens,
        }
