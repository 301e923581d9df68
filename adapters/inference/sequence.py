"""One generation in a batch: from sampled tokens to text, deltas and the final account. Knows no MLX."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from manent.adapters.inference.protocol import Delta, Finished, Generate, RunnerFrame
from manent.adapters.inference.stop_text import StopMatcher
from manent.domain.generation import FinishReason, Timings, Usage


class Detokenizer(Protocol):
    """The part of mlx-lm's streaming detokenizers that is used here."""

    @property
    def last_segment(self) -> str:
        """Text that became readable since this was last asked."""
        ...

    def add_token(self, token: int) -> None:
        """Take a token in; bytes of an unfinished character wait."""
        ...

    def finalize(self) -> None:
        """Make what waits readable."""
        ...


@dataclass(slots=True)
class _Times:
    """Moments on the monotonic clock, in seconds; 0 until they come."""

    received_s: float
    started_s: float = 0.0
    first_token_s: float = 0.0
    heard_s: float = 0.0


class GeneratedSequence:
    """A generation from its request to its end.

    ``completion_tokens`` counts every sampled token, the one that ended the text (end of sequence, or the one that
    completed a stop string) included, as vLLM and llama.cpp count; ``token_ids`` of the deltas are the same tokens.
    """

    def __init__(self, request: Generate, detokenizer: Detokenizer, *, received_s: float) -> None:
        self.id = request.id
        self.prompt_tokens = len(request.token_ids)
        self.batch_size_max = 0
        self._completion_tokens = 0
        self._detokenizer = detokenizer
        self._stops = StopMatcher(request.parameters.stop)
        self._times = _Times(received_s=received_s)

    def started(self, at_s: float) -> None:
        """The first evaluation for this request began at this moment; later calls change nothing."""
        self._times.started_s = self._times.started_s or at_s

    def batched(self, batch_size: int) -> None:
        """The sequence was evaluated together with so many, itself included."""
        self.batch_size_max = max(self.batch_size_max, batch_size)

    def due(self, now_s: float, *, interval_s: float) -> bool:
        """Whether the server should hear of this request again; if so, it counts as heard now."""
        if now_s - max(self._times.heard_s, self._times.received_s) < interval_s:
            return False
        self._times.heard_s = now_s
        return True

    def push(self, token: int, batch_reason: str | None, *, batch_size: int) -> tuple[list[RunnerFrame], bool]:
        """Take a sampled token in.

        Args:
            token: its id.
            batch_reason: ``stop`` if it ends the sequence, ``length`` if it is the last one allowed, else None.
            batch_size: how many sequences were evaluated together.

        Returns:
            The frames to send, and whether the generation ended with this token.
        """
        now_s = time.monotonic()
        self.started(now_s)
        self._times.first_token_s = self._times.first_token_s or now_s
        self._times.heard_s = now_s
        self._completion_tokens += 1
        self.batched(batch_size)
        if batch_reason != FinishReason.STOP:
            self._detokenizer.add_token(token)
        if batch_reason is not None:
            self._detokenizer.finalize()
        text = self._stops.push(self._detokenizer.last_segment)
        if batch_reason is not None:
            text += self._stops.finish()
        frames: list[RunnerFrame] = [Delta(id=self.id, text=text, token_ids=(token,))]
        if self._stops.stopped:
            return [*frames, self._finished(FinishReason.STOP, now_s)], True
        if batch_reason is not None:
            return [*frames, self._finished(FinishReason(batch_reason), now_s)], True
        return frames, False

    def _finished(self, reason: FinishReason, now_s: float) -> Finished:
        times = self._times
        return Finished(
            id=self.id,
            finish_reason=reason,
            usage=Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self._completion_tokens),
            timings=Timings(
                queue_s=times.started_s - times.received_s,
                prefill_s=times.first_token_s - times.started_s,
                decode_s=now_s - times.first_token_s,
            ),
            batch_size_max=self.batch_size_max,
        )
