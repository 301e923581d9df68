"""A deterministic request in a batch of its own: the same evaluations whatever came before, for every kind of model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.model_kinds import KINDS, model_of_kind
from tests.support.tiny_batches import answer, answers, asking, tiny_batch

PROMPT = [(7 * number) % 61 for number in range(70)]
CHUNK_TOKENS = 16


class Watched:
    """A model that remembers the shapes of what it evaluates."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, tokens: Any, *others: Any, **named: Any) -> Any:
        """Evaluate."""
        self.shapes.append(tuple(tokens.shape))
        return self.model(tokens, *others, **named)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the model's."""
        return getattr(self.model, name)


class Pace:
    """A clock's verdict: where others wait, chunks have so many tokens."""

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens

    def chunk_tokens(self, *, decoding: int, **_: int) -> int:
        """As many as there may be now."""
        return self._chunk_tokens if decoding else CHUNK_TOKENS

    def took(self, *_: object, **__: object) -> None:
        """Nothing is learnt."""


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_rerun_evaluates_the_same_whatever_was_measured_before(kind: str, n: int) -> None:
    """Prompts come in pieces whose size depends on the clock; those of a deterministic request do not.

    The noise is keyed by (seed, choice, position), and each evaluation has the shape that it had.
    """
    model = Watched(model_of_kind(kind))
    batch = tiny_batch(model)
    seen = []
    for chunk_tokens in (2, 5, 9):
        batch._pace = Pace(chunk_tokens)  # type: ignore[assignment]  # it has what the batch asks for
        model.shapes.clear()
        request = asking(1, PROMPT, scope=None, temperature=1.0, seed=5, n=n, deterministic=True)
        tokens, cached_tokens, _ = answer(batch, request)
        seen.append((tokens, cached_tokens, tuple(model.shapes)))
        answers(batch, *(asking(number, PROMPT[number:], temperature=1.0, seed=number) for number in range(2, 6)))
    assert len(set(map(str, seen))) == 1
    assert seen[0][1] == 0
    assert len(seen[0][0]) == 8 * n
