"""Continuous batching of text generation with mlx-lm: requests join and leave between evaluations.

Everything here belongs to one thread, the one that loaded the model: MLX streams are thread-local.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from mlx_lm.generate import BatchGenerator

from manent.adapters.inference.protocol import Failed, Generate, Progress, RunnerFrame
from manent.adapters.inference.sampling import make_sampler
from manent.adapters.inference.sequence import Detokenizer, GeneratedSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much is evaluated at once.

    Small prefill chunks let the others go on while a long prompt comes in; they are what a step's length, and so the
    delay of a cancellation, is bounded by.
    """

    decode_sequences: int = 32
    prefill_sequences: int = 4
    prefill_chunk_tokens: int = 128
    progress_interval_s: float = 1.0


class TextBatch:
    """The sequences that one model is generating, and the evaluation steps that move them all on."""

    def __init__(
        self,
        model: Any,
        *,
        eos_token_ids: Collection[int],
        vocabulary_size: int,
        new_detokenizer: Callable[[], Detokenizer],
        limits: BatchLimits | None = None,
    ) -> None:
        self._model = model
        self._eos_token_ids = sorted(eos_token_ids)
        self._vocabulary_size = vocabulary_size
        self._new_detokenizer = new_detokenizer
        self._limits = limits or BatchLimits()
        self._sequences: dict[int, GeneratedSequence] = {}
        self._uids: dict[int, int] = {}
        self._generator = self._new_generator()
        self.steps = 0

    @property
    def active(self) -> int:
        """How many requests are waiting, being prefilled or generating."""
        return len(self._sequences)

    def add(self, request: Generate, *, received_s: float) -> list[RunnerFrame]:
        """Let a request join; the answer is a Failed frame if it cannot be evaluated, and empty otherwise.

        What would fail in the middle of a batch, and so take others with it, is refused here.
        """
        if not request.token_ids:
            return [Failed(id=request.id, code="invalid_value", message="the prompt is empty")]
        if not all(0 <= token < self._vocabulary_size for token in request.token_ids):
            bound = self._vocabulary_size - 1
            return [Failed(id=request.id, code="generation_failed", message=f"token ids must be within 0 and {bound}")]
        try:
            sequence = GeneratedSequence(request, self._new_detokenizer(), received_s=received_s)
            (uid,) = self._generator.insert(
                [list(request.token_ids)],
                max_tokens=[request.parameters.max_tokens],
                samplers=[make_sampler(request.parameters)],
            )
        except ValueError as error:
            return [Failed(id=request.id, code="invalid_value", message=str(error))]
        self._sequences[uid] = sequence
        self._uids[request.id] = uid
        return []

    def cancel(self, request_id: int) -> None:
        """Drop a request before its next evaluation; an unknown one has ended already."""
        uid = self._uids.get(request_id)
        if uid is not None:
            self._generator.remove([uid])
            self._forget(uid)

    def step(self) -> list[RunnerFrame]:
        """Evaluate once: one token of every generating sequence, one chunk of every prompt that is being prefilled."""
        began_s = time.monotonic()
        try:
            prompts, tokens = self._generator.next()
        except Exception as error:  # noqa: BLE001 (whatever a model raises fails its batch and not the runner)
            return self._fail_all(error)
        self.steps += 1
        frames: list[RunnerFrame] = []
        processed = {}
        for prompt in prompts:
            if (sequence := self._sequences.get(prompt.uid)) is not None:
                sequence.started(began_s)
                processed[prompt.uid] = prompt.progress[0]
        for token in tokens:
            frames += self._take(token.uid, token.token, token.finish_reason, batch_size=len(tokens))
        return frames + self._progress(processed)

    def _take(self, uid: int, token: int, batch_reason: str | None, *, batch_size: int) -> list[RunnerFrame]:
        sequence = self._sequences[uid]
        frames: list[RunnerFrame]
        try:
            frames, ended = sequence.push(token, batch_reason, batch_size=batch_size)
        except Exception as error:  # noqa: BLE001 (a detokenizer that fails on a token fails this request alone)
            frames, ended = [_failed(sequence.id, error)], True
        if ended:
            if batch_reason is None:
                self._generator.remove([uid])
            self._forget(uid)
        return frames

    def _progress(self, processed: dict[int, int]) -> list[RunnerFrame]:
        """A sign of life for every request that produced nothing for a while, those that still wait included."""
        now_s = time.monotonic()
        return [
            Progress(id=sequence.id, processed_tokens=processed.get(uid, 0), total_tokens=sequence.prompt_tokens)
            for uid, sequence in self._sequences.items()
            if sequence.due(now_s, interval_s=self._limits.progress_interval_s)
        ]

    def _fail_all(self, error: Exception) -> list[RunnerFrame]:
        """Fail the whole batch: an evaluation is one graph for all, and its state is not to be trusted any more."""
        frames: list[RunnerFrame] = [_failed(sequence.id, error) for sequence in self._sequences.values()]
        self._sequences.clear()
        self._uids.clear()
        self._generator.close()
        self._generator = self._new_generator()
        return frames

    def _forget(self, uid: int) -> None:
        del self._uids[self._sequences.pop(uid).id]

    def _new_generator(self) -> Any:
        return BatchGenerator(
            self._model,
            stop_tokens=[[token] for token in self._eos_token_ids],
            completion_batch_size=self._limits.decode_sequences,
            prefill_batch_size=self._limits.prefill_sequences,
            prefill_step_size=self._limits.prefill_chunk_tokens,
        )


def _failed(request_id: int, error: Exception) -> Failed:
    message = f"the model could not be evaluated: {type(error).__name__}: {error}"[:500]
    return Failed(id=request_id, code="generation_failed", message=message)
