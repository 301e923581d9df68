"""A grammar as one sequence follows it: which tokens may come next. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

_BITS = 8


class GrammarTooComplex(Exception):
    """Following the grammar went beyond its bounds of work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """The tokens around a model's reasoning, and whether the prompt opened it already."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    opened: bool = False


class Guide:
    """Follows a grammar, which rules what comes behind the reasoning of a model that thinks; never raises in ``mask``.

    Args:
        matcher: the grammar's own copy for this sequence.
        thinking: how reasoning is marked; None for a model without it.
        output: tokens that were said already.
    """

    def __init__(self, matcher: Any, *, thinking: Thinking | None = None, output: Sequence[int] = ()) -> None:
        self._matcher = matcher
        self._thinking = thinking
        self._free = thinking is not None and thinking.opened
        self._tail: list[int] = []
        self._said = 0
        self._ended = False
        for token in output:
            self.advance(token)

    def advance(self, token: int) -> None:
        """The sequence goes on with ``token``.

        Raises:
            GrammarTooComplex: the grammar cannot be followed further.
        """
        self._said += 1
        if self._thinking is not None and self._reasons(token, self._thinking):
            return
        if self._ended:
            return  # mlx-lm evaluates one position beyond the end
        self._ended = self._matcher.is_stopped()
        if not self._ended and not self._matcher.consume_token(token):
            raise GrammarTooComplex(self._reason())

    def mask(self) -> mx.array | None:
        """What may come next, as bits, least first, packed in bytes; None where everything may.

        Raises:
            GrammarTooComplex: the grammar cannot be followed further.
        """
        if self._free:
            return None
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise GrammarTooComplex(self._reason())
        if self._said == 0 and self._thinking is not None:
            bits = _with(bits, self._thinking.start[0])
        return mx.array(memoryview(bits))  # type: ignore[arg-type]  # whatever has a buffer is copied

    def _reasons(self, token: int, thinking: Thinking) -> bool:
        """Whether a token is part of reasoning, and not ruled."""
        if self._said == 1 and not self._free and token == thinking.start[0]:
            self._free = True
            return True
        if not self._free:
            return False
        self._tail = [*self._tail, token][-len(thinking.end) :]
        self._free = self._tail != list(thinking.end)
        return True

    def _reason(self) -> str:
        said = " ".join(str(self._matcher.get_error()).split("<state>", maxsplit=1)[0].split())[:300]
        return f"the grammar of the answer cannot be followed within its bounds of work: {said}"


def allowed(scores: mx.array, mask: mx.array) -> mx.array:
    """Minus infinity for the scores, of shape (1, vocabulary), of what ``Guide.mask`` rules out."""
    bits = (mask[:, None] >> mx.arange(_BITS, dtype=mx.uint8)) & 1
    known = bits.reshape(1, -1)[:, : scores.shape[-1]] != 0
    if known.shape[-1] < scores.shape[-1]:
        padding = mx.zeros((1, scores.shape[-1] - known.shape[-1]), dtype=mx.bool_)
        known = mx.concatenate([known, padding], axis=-1)
    return mx.where(known, scores, -mx.inf)


def _with(bits: bytes, token: int) -> bytes:
    changed = bytearray(bits)
    changed[token // _BITS] |= 1 << (token % _BITS)
    return bytes(changed)
