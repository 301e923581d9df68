"""Choosing a token: biases and penalties, then greedy, or by temperature and filters with keyed noise.

The order is vLLM's: logit bias; repetition, frequency and presence penalty; what a grammar rules out; temperature;
min-p, top-k, top-p; and last the Gumbel-max trick with noise that depends on seed, choice and position alone.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from manent.adapters.inference.guide import Guide, allowed
from manent.adapters.inference.penalties import Penalties
from manent.domain.generation import SamplingParameters

_GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy: dividing by them would overflow (vLLM draws the line in the same place)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token as the device has it: arrays that were evaluated together with it, read once it is handed out."""

    token: mx.array
    logprob: mx.array
    top_ids: mx.array | None = None
    top_logprobs: mx.array | None = None

    @property
    def token_id(self) -> int:
        """The token; waits until it is evaluated."""
        return cast("int", self.token.item())

    @property
    def logprob_value(self) -> float:
        """Its log probability; not finite where the model gave no numbers."""
        return cast("float", self.logprob.item())

    def top(self) -> list[tuple[int, float]]:
        """The most probable tokens with their log probabilities, best first; of equal ones, the smaller id."""
        if self.top_ids is None or self.top_logprobs is None:
            return []
        (ids,) = cast("list[list[int]]", self.top_ids.tolist())
        (logprobs,) = cast("list[list[float]]", self.top_logprobs.tolist())
        return sorted(zip(ids, logprobs, strict=True), key=lambda pair: (-pair[1], pair[0]))


class TokenChooser:
    """The sampler of one choice of one generation, called once per token.

    The call raises nothing, because in a batch that would end all: what went wrong is kept in ``failure``, and the
    most probable token stands in until the request is dropped. mlx-lm sets the next evaluation in motion before it
    hands a token out; so what was chosen waits here, in order, for ``take``.

    Args:
        parameters: of the request.
        index: which of its choices.
        prompt: its token ids.
        output: the tokens of this choice that were handed out before, where it goes on after a failed evaluation.
        guide: what rules tokens out; it has followed ``output``.
    """

    def __init__(
        self,
        parameters: SamplingParameters,
        *,
        index: int = 0,
        prompt: Sequence[int] = (),
        output: Sequence[int] = (),
        guide: Guide | None = None,
    ) -> None:
        self.failure: Exception | None = None
        self._parameters = parameters
        self._index = index
        self._position = len(output)
        self._penalties = Penalties.of(parameters, prompt=prompt, output=output)
        self._logits: mx.array | None = None
        self._guide = guide
        self._last: mx.array | None = None
        self._waiting: deque[Choice] = deque()

    @property
    def needs_logits(self) -> bool:
        """Whether ``see_logits`` has to be among the logits processors of the sequence."""
        return self._parameters.logprobs or self._parameters.repetition_penalty != 1

    def see_logits(self, _tokens: mx.array, logits: mx.array) -> mx.array:
        """A logits processor that changes nothing: half-precision log probabilities would be too coarse to tell."""
        self._logits = logits
        return logits

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Sample the next token from log probabilities of shape (1, vocabulary)."""
        try:
            choice = self._choose(logprobs)
        except Exception as error:  # noqa: BLE001 (it fails this request, and must not reach the batch)
            self.failure = self.failure or error
            token = mx.argmax(logprobs, axis=-1)
            choice = Choice(token, _at(logprobs, token))
        self._waiting.append(choice)
        self._last = choice.token
        self._position += 1
        return choice.token

    def latest_token(self) -> int | None:
        """The token that was chosen last, once it is evaluated; None before the first."""
        return self._waiting[-1].token_id if self._waiting else None

    def take(self) -> Choice:
        """What was chosen where the next token is handed out; the token has been evaluated.

        Raises:
            ArithmeticError: the model gave no numbers (one NaN or infinity among logits spoils all log probabilities).
            Exception: what went wrong in choosing.
        """
        choice = self._waiting.popleft()
        if self.failure is not None:
            raise self.failure
        if not math.isfinite(choice.logprob_value):
            raise ArithmeticError("its logits are not numbers")
        return choice

    def propose(self, logprobs: mx.array, *, ahead: int) -> mx.array:
        """A guess at the token ``ahead`` of the next one, from another model's log probabilities of this shape.

        It has the noise of its position; what is left out of it (what is counted on the way, a grammar) only makes it
        a worse guess.
        """
        scores = logprobs.astype(mx.float32)
        if self._penalties is not None:
            scores = self._penalties.apply(scores)
        return self._sample(scores, self._position + ahead)

    def _choose(self, logprobs: mx.array) -> Choice:
        raw = logprobs.astype(mx.float32)
        scores = raw
        if self._logits is not None:
            logits = self._logits.astype(mx.float32)
            if self._logits.dtype != mx.float32:
                raw = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            scores = logits if self._parameters.repetition_penalty != 1 else scores
        if self._penalties is not None:
            scores = self._penalties.apply(scores)
        if self._guide is not None:
            scores = self._ruled(scores, self._guide, logprobs)
        token = self._sample(scores, self._position)
        top_ids = top_logprobs = None
        found = [_at(raw, token)]
        if count := self._parameters.top_logprobs:
            top_ids = mx.argpartition(-raw, kth=count - 1, axis=-1)[:, :count]
            top_logprobs = mx.take_along_axis(raw, top_ids, axis=-1)
            found += [top_ids, top_logprobs]
        # Evaluated as part of the token's own evaluation: asked for later, they would wait behind the next one.
        (token,) = mx.depends([token], found)
        if self._penalties is not None:
            self._penalties.count(token)
        return Choice(token, found[0], top_ids, top_logprobs)

    def _ruled(self, scores: mx.array, guide: Guide, logprobs: mx.array) -> mx.array:
        """The scores of what the guide lets through. The host works on it while the device evaluates the model."""
        mx.async_eval(logprobs)  # type: ignore[no-untyped-call]  # MLX's stubs lack it
        if self._last is not None:
            guide.advance(cast("int", self._last.item()))
        mask = guide.mask()
        return scores if mask is None else allowed(scores, mask)

    def _sample(self, scores: mx.array, position: int) -> mx.array:
        asked = self._parameters
        if asked.temperature < _GREEDY_BELOW:
            return mx.argmax(scores, axis=-1)
        # Relative to the maximum, because a tiny temperature would make every value infinite.
        scaled = (scores - mx.max(scores, axis=-1, keepdims=True)) / asked.temperature
        if asked.min_p > 0:
            scaled = keep_min_p(scaled, asked.min_p)
        if asked.top_k > 0:
            scaled = keep_top_k(scaled, asked.top_k)
        if asked.top_p < 1:
            scaled = keep_top_p(scaled, asked.top_p)
        noise = mx.random.gumbel(scaled.shape, key=_key(asked.seed, self._index, position))
        return mx.argmax(scaled + noise, axis=-1)


def keep_min_p(logits: mx.array, min_p: float) -> mx.array:
    """Minus infinity for all tokens less probable than ``min_p`` times the most probable one."""
    return mx.where(logits < mx.max(logits, axis=-1, keepdims=True) + math.log(min_p), -mx.inf, logits)


def keep_top_k(logits: mx.array, top_k: int) -> mx.array:
    """Minus infinity for all but the ``top_k`` most probable tokens; those that tie with the last of them are kept."""
    if top_k >= logits.shape[-1]:
        return logits
    threshold = mx.min(mx.topk(logits, top_k, axis=-1), axis=-1, keepdims=True)
    return mx.where(logits < threshold, -mx.inf, logits)


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


def _at(values: mx.array, token: mx.array) -> mx.array:
    return mx.take_along_axis(values, token[:, None], axis=-1)


def _key(seed: int, index: int, position: int) -> mx.array:
    """A random key of 64 bits; hashed, because neighbouring seeds and positions must have unrelated noise.

    The first choice's key does not name it, so that it is the answer which the same seed gives to n = 1.
    """
    name = f"{seed}:{position}" if index == 0 else f"{seed}:{index}:{position}"
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return mx.array([int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")], dtype=mx.uint32)
