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
from manent.adapters.inference.sampling import RememberingSampler
from manent.adapters.inference.sequence import Detokenizer, GeneratedSequence
from manent.domain.generation import FinishReason


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


@dataclass(slots=True)
class _Member:
    """A request in the batch. ``shown_early``: its first token was taken from the sampler, and will come again."""

    sequence: GeneratedSequence
    sampler: RememberingSampler
    max_tokens: int
    shown_early: bool = False


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
        self._eos_token_ids = frozenset(eos_token_ids)
        self._vocabulary_size = vocabulary_size
        self._new_detokenizer = new_detokenizer
        self._limits = limits or BatchLimits()
        self._members: dict[int, _Member] = {}
        self._uids: dict[int, int] = {}
        self._generator = self._new_generator()
        self.steps = 0

    @property
    def active(self) -> int:
        """How many requests are waiting, being prefilled or generating."""
        return len(self._members)

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
            sampler = RememberingSampler(request.parameters)
            (uid,) = self._generator.insert(
                [list(request.token_ids)],
                max_tokens=[request.parameters.max_tokens],
                samplers=[sampler],
            )
        except ValueError as error:
            return [Failed(id=request.id, code="invalid_value", message=str(error))]
        self._members[uid] = _Member(sequence, sampler, request.parameters.max_tokens)
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
        for token in tokens:
            frames += self._take(token.uid, token.token, token.finish_reason, batch_size=len(tokens))
        for prompt in prompts:
            if (member := self._members.get(prompt.uid)) is not None:
                member.sequence.started(began_s)
                processed[prompt.uid] = prompt.progress[0]
        complete = [prompt.uid for prompt in prompts if prompt.end_of_prompt]
        for uid in complete:
            if uid in self._members:
                frames += self._take_early(uid, batch_size=len(complete))
        return frames + self._progress(processed)

    def _take_early(self, uid: int, *, batch_size: int) -> list[RunnerFrame]:
        """The first token of a sequence whose prompt is complete, one whole evaluation before mlx-lm hands it out."""
        member = self._members[uid]
        try:
            token = member.sampler.latest_token()
        except Exception as error:  # noqa: BLE001 (the evaluation that was set in motion fails here)
            return self._fail_all(error)
        if token is None:
            return []
        reason = FinishReason.LENGTH if member.max_tokens == 1 else None
        frames = self._push(uid, token, FinishReason.STOP if token in self._eos_token_ids else reason, batch_size)
        member.shown_early = True
        if uid not in self._members:
            self._generator.remove([uid])
        return frames

    def _take(self, uid: int, token: int, batch_reason: str | None, *, batch_size: int) -> list[RunnerFrame]:
        """A token that mlx-lm hands out; with a reason, its sequence has left the generator already."""
        member = self._members[uid]
        if member.shown_early:
            member.shown_early = False
            member.sequence.batched(batch_size)
            return []
        frames = self._push(uid, token, batch_reason, batch_size)
        if uid not in self._members and batch_reason is None:
            self._generator.remove([uid])
        return frames

    def _push(self, uid: int, token: int, reason: str | None, batch_size: int) -> list[RunnerFrame]:
        sequence = self._members[uid].sequence
        frames: list[RunnerFrame]
        try:
            frames, ended = sequence.push(token, reason, batch_size=batch_size)
        except Exception as error:  # noqa: BLE001 (a detokenizer that fails on a token fails this request alone)
            frames, ended = [_failed(sequence.id, error)], True
        if ended:
            self._forget(uid)
        return frames

    def _progress(self, processed: dict[int, int]) -> list[RunnerFrame]:
        """A sign of life for every request that produced nothing for a while, those that still wait included."""
        now_s = time.monotonic()
        return [
            Progress(
                id=member.sequence.id,
                processed_tokens=processed.get(uid, 0),
                total_tokens=member.sequence.prompt_tokens,
            )
            for uid, member in self._members.items()
            if member.sequence.due(now_s, interval_s=self._limits.progress_interval_s)
        ]

    def _fail_all(self, error: Exception) -> list[RunnerFrame]:
        """Fail the whole batch: an evaluation is one graph for all, and its state is not to be trusted any more."""
        frames: list[RunnerFrame] = [_failed(member.sequence.id, error) for member in self._members.values()]
        self._members.clear()
        self._uids.clear()
        self._generator.close()
        self._generator = self._new_generator()
        return frames

    def _forget(self, uid: int) -> None:
        del self._uids[self._members.pop(uid).sequence.id]

    def _new_generator(self) -> Any:
        return BatchGenerator(
            self._model,
            stop_tokens=[[token] for token in sorted(self._eos_token_ids)],
            completion_batch_size=self._limits.decode_sequences,
            prefill_batch_size=self._limits.prefill_sequences,
            prefill_step_size=self._limits.prefill_chunk_tokens,
        )


def _failed(request_id: int, error: Exception) -> Failed:
    message = f"the model could not be evaluated: {type(error).__name__}: {error}"[:500]
    return Failed(id=request_id, code="generation_failed", message=message)
