"""Biases and penalties on one sequence's scores, kept on the device: no token is waited for to be counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlx.core as mx

from manent.domain.generation import SamplingParameters


class Penalties:
    """What changes the scores of a sequence, in vLLM's order: bias, repetition, frequency, presence.

    Frequency and presence look at the output alone, as OpenAI describes them and vLLM does; repetition looks at prompt
    and output, as in the paper (arXiv 1909.05858), vLLM and Hugging Face. All look at the whole of it, where mlx-lm's
    own look at the last 20 tokens.
    """

    def __init__(self, parameters: SamplingParameters, *, prompt: Sequence[int], output: Sequence[int]) -> None:
        self._repetition = parameters.repetition_penalty
        self._frequency = parameters.frequency_penalty
        self._presence = parameters.presence_penalty
        self._bias = _bias(parameters.logit_bias)
        self._prompt = prompt if self._repetition != 1 else ()
        self._output = output
        self._in_prompt: mx.array | None = None
        self._counts: mx.array | None = None

    @classmethod
    def of(cls, parameters: SamplingParameters, *, prompt: Sequence[int], output: Sequence[int]) -> Penalties | None:
        """Those of a request; None where it has none."""
        penalties = cls(parameters, prompt=prompt, output=output)
        return penalties if penalties._counting or penalties._bias is not None else None

    def apply(self, scores: mx.array) -> mx.array:
        """The scores, of shape (1, vocabulary), after bias and penalties; a repetition penalty needs raw logits."""
        if self._bias is not None:
            token_ids, values = self._bias
            scores = scores.at[:, token_ids].add(values)
        if not self._counting:
            return scores
        if self._counts is None or self._in_prompt is None:
            self._counts = _counts(self._output, scores.shape[-1])
            self._in_prompt = _counts(self._prompt, scores.shape[-1]) > 0
        said = self._counts > 0
        if self._repetition != 1:
            penalized = mx.where(scores > 0, scores / self._repetition, scores * self._repetition)
            scores = mx.where(mx.logical_or(said, self._in_prompt), penalized, scores)
        return scores - self._frequency * self._counts - self._presence * said

    def count(self, token: mx.array) -> None:
        """The sequence goes on with ``token``, of shape (1,)."""
        if self._counts is not None:
            self._counts = self._counts.at[:, token].add(1.0)

    @property
    def _counting(self) -> bool:
        return self._repetition != 1 or self._frequency != 0 or self._presence != 0


def _bias(bias: Mapping[int, float]) -> tuple[mx.array, mx.array] | None:
    if not bias:
        return None
    return mx.array(list(bias), dtype=mx.uint32), mx.array(list(bias.values()), dtype=mx.float32)


def _counts(tokens: Sequence[int], vocabulary_size: int) -> mx.array:
    """How often each token occurs, of shape (1, vocabulary)."""
    counts = mx.zeros((1, vocabulary_size))
    if not tokens:
        return counts
    return counts.at[:, mx.array(list(tokens), dtype=mx.uint32)].add(1.0)
