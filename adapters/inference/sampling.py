"""Choosing a token: greedy, or by temperature and top-p with noise that depends on seed and position alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import mlx.core as mx

from manent.domain.generation import SamplingParameters

Sampler = Callable[[mx.array], mx.array]

_GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy: dividing by them would overflow (vLLM draws the line in the same place)."""


class RememberingSampler:
    """The sampler of one generation: called once per token, with log probabilities of shape (1, vocabulary).

    It keeps what it sampled last, because mlx-lm hands a token out only after it has set the next evaluation in
    motion: whoever wants the first token early asks here.
    """

    def __init__(self, parameters: SamplingParameters) -> None:
        self._sample = make_sampler(parameters)
        self._latest: mx.array | None = None

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Sample the next token."""
        self._latest = self._sample(logprobs)
        return self._latest

    def latest_token(self) -> int | None:
        """The token that was sampled last, once it is evaluated; None before the first."""
        return None if self._latest is None else int(self._latest.item())  # type: ignore[arg-type]  # a scalar array of token ids


def make_sampler(parameters: SamplingParameters) -> Sampler:
    """Greedy or keyed, as the temperature says."""
    if parameters.temperature < _GREEDY_BELOW:
        return greedy
    return KeyedSampler(temperature=parameters.temperature, top_p=parameters.top_p, seed=parameters.seed)


def greedy(logprobs: mx.array) -> mx.array:
    """The most probable token of each row."""
    return mx.argmax(logprobs, axis=-1)


class KeyedSampler:
    """Temperature, then top-p (the order of Hugging Face and vLLM), then the Gumbel-max trick.

    The noise of a token is a function of the seed and of the token's position in the output, and of nothing else:
    no global random state is read or advanced, so a seed gives the same tokens alone and among others.
    """

    def __init__(self, *, temperature: float, top_p: float, seed: int) -> None:
        self._temperature = temperature
        self._top_p = top_p
        self._seed = seed
        self._position = 0

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Sample the next token of each row (there is one)."""
        scaled = logprobs.astype(mx.float32)
        # Relative to the maximum, because a tiny temperature would make every value infinite.
        scaled = (scaled - mx.max(scaled, axis=-1, keepdims=True)) / self._temperature
        if self._top_p < 1:
            scaled = keep_top_p(scaled, self._top_p)
        noise = mx.random.gumbel(scaled.shape, key=_key(self._seed, self._position))
        self._position += 1
        return mx.argmax(scaled + noise, axis=-1)


def keep_top_p(logits: mx.array, top_p: float) -> mx.array:
    """Minus infinity for all but the most probable tokens that together reach ``top_p``; one is always kept."""
    ascending = mx.sort(logits, axis=-1)
    probabilities = mx.softmax(ascending, axis=-1)
    mass_above = mx.cumsum(probabilities, axis=-1, reverse=True, inclusive=False)
    # The most probable token has no mass above it; comparing with a positive top_p always keeps it.
    dropped = (mass_above >= top_p).sum(axis=-1, keepdims=True)
    dropped = mx.minimum(dropped, logits.shape[-1] - 1)
    threshold = mx.take_along_axis(ascending, dropped, axis=-1)
    return mx.where(logits < threshold, -mx.inf, logits)


def _key(seed: int, position: int) -> mx.array:
    """A random key of 64 bits; hashed, because neighbouring seeds and positions must have unrelated noise."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return mx.array([int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")], dtype=mx.uint32)
