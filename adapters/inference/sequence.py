"""One generation in a batch: from sampled tokens to text, deltas and the final account. Knows no MLX."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from manent.adapters.inference.output_reader import OutputReader, Parts
from manent.adapters.inference.protocol import Delta, Finished, Generate, RunnerFrame
from manent.adapters.inference.stop_text import StopMatcher
from manent.domain.caching import CacheUse
from manent.domain.drafting import DraftUse
from manent.domain.generation import FinishReason, Timings, TokenLogprobs, Usage
from manent.domain.images import ImagesUsed


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


def placed(detokenizer: Detokenizer, request: Generate) -> Detokenizer:
    """``detokenizer``, behind a prompt that is continued as it stands: at a beginning it would drop a space."""
    if request.raw:
        detokenizer.add_token(request.token_ids[-1])
        detokenizer.finalize()
        _ = detokenizer.last_segment
    return detokenizer


@dataclass(slots=True)
class _Times:
    """Moments on the monotonic clock, in seconds; 0 until they come."""

    received_s: float
    started_s: float = 0.0
    first_token_s: float = 0.0
    heard_s: float = 0.0


class GeneratedRequest:
    """A generation from its request to its end, all of its choices.

    ``completion_tokens`` counts every sampled token, the one that ended the text (end of sequence, or the one that
    completed a stop string) included, as vLLM and llama.cpp count; ``token_ids`` of the deltas are the same tokens.
    """

    def __init__(self, request: Generate, new_text: Callable[[], GeneratedText], *, received_s: float) -> None:
        self.id = request.id
        self.prompt_tokens = len(request.token_ids)
        self.cached_tokens = 0
        self.cache: CacheUse | None = None
        self.images: ImagesUsed | None = None
        self.draft: DraftUse | None = None
        self.batch_size_max = 0
        self._batch_sizes: Counter[int] = Counter()
        self._choices = [new_text() for _ in range(request.parameters.n)]
        self._completion_tokens = 0
        self._times = _Times(received_s=received_s)

    def began_with(self, cache: CacheUse, *, cached_tokens: int) -> bool:
        """What the prefix cache did when it was first handed to the model; False if that was told before."""
        if self.cache is not None:
            return False
        self.cache, self.cached_tokens = cache, cached_tokens
        return True

    def started(self, at_s: float) -> None:
        """The first evaluation for this request began at this moment; later calls change nothing."""
        self._times.started_s = self._times.started_s or at_s

    def batched(self, batch_size: int) -> None:
        """It was evaluated together with so many sequences, itself included."""
        self.batch_size_max = max(self.batch_size_max, batch_size)

    def due(self, now_s: float, *, interval_s: float) -> bool:
        """Whether the server should hear of this request again; if so, it counts as heard now."""
        if now_s - max(self._times.heard_s, self._times.received_s) < interval_s:
            return False
        self._times.heard_s = now_s
        return True

    def ended(self, index: int) -> bool:
        """Whether this choice got its last token."""
        return self._choices[index].finish_reason is not None

    def push(
        self,
        index: int,
        token: int,
        batch_reason: str | None,
        *,
        batch_size: int,
        logprobs: TokenLogprobs | None = None,
    ) -> list[RunnerFrame]:
        """Take a sampled token in.

        Args:
            index: of the choice that it was sampled for.
            token: its id.
            batch_reason: ``stop`` if it ends the sequence, ``length`` if it is the last one allowed, else None.
            batch_size: how many sequences were evaluated together.
            logprobs: what the model thought of it, where that was asked for.

        Returns:
            The frames to send: a Delta, and with the last token of the last choice Finished.
        """
        now_s = time.monotonic()
        self.started(now_s)
        self._times.first_token_s = self._times.first_token_s or now_s
        self._times.heard_s = now_s
        self._completion_tokens += 1
        self._batch_sizes[batch_size] += 1
        self.batched(batch_size)
        parts, told = self._choices[index].push(token, batch_reason, logprobs)
        delta = Delta(
            id=self.id,
            index=index,
            text=parts.text,
            token_ids=(token,),
            logprobs=told,
            reasoning=parts.reasoning,
            tool_calls=parts.tool_calls,
        )
        reasons = [choice.finish_reason for choice in self._choices]
        ended = tuple(reason for reason in reasons if reason is not None)
        return [delta, self._finished(ended, now_s)] if len(ended) == len(reasons) else [delta]

    def _finished(self, reasons: tuple[FinishReason, ...], now_s: float) -> Finished:
        times = self._times
        return Finished(
            id=self.id,
            finish_reasons=reasons,
            stop_sequences=tuple(choice.stop_sequence for choice in self._choices),
            usage=Usage(
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self._completion_tokens,
                cached_tokens=self.cached_tokens,
                reasoning_tokens=sum(choice.reasoning_tokens for choice in self._choices),
            ),
            timings=Timings(
                queue_s=times.started_s - times.received_s,
                prefill_s=times.first_token_s - times.started_s,
                decode_s=now_s - times.first_token_s,
            ),
            batch_size_max=self.batch_size_max,
            batch_sizes=dict(self._batch_sizes),
            cache=self.cache or CacheUse(),
            images=self.images,
            draft=self.draft,
        )


class GeneratedText:
    """The text of one choice. Log probabilities wait for their token's text, and go with it or are dropped with it."""

    def __init__(self, detokenizer: Detokenizer, stops: StopMatcher, reader: OutputReader | None = None) -> None:
        self.finish_reason: FinishReason | None = None
        self.reasoning_tokens = 0
        self._reader = reader
        self._detokenizer = detokenizer
        self._stops = stops
        self._read_chars = 0
        self._shown_chars = 0
        self._waiting: deque[tuple[int, TokenLogprobs]] = deque()

    @property
    def stop_sequence(self) -> str | None:
        """The stop string that ended it, if one did."""
        return self._stops.stopped_by

    def push(
        self, token: int, batch_reason: str | None, logprobs: TokenLogprobs | None
    ) -> tuple[Parts, tuple[TokenLogprobs, ...]]:
        """Take a token in, and give back what became certain."""
        ends_sequence = batch_reason == FinishReason.STOP
        if not ends_sequence:
            self._detokenizer.add_token(token)
            if logprobs is not None:
                self._waiting.append((self._read_chars, logprobs))
        if batch_reason is not None:
            self._detokenizer.finalize()
        segment = self._detokenizer.last_segment
        self._read_chars += len(segment)
        text = self._stops.push(segment)
        if batch_reason is not None:
            text += self._stops.finish()
        if self._stops.stopped or batch_reason is not None:
            self.finish_reason = FinishReason.STOP if self._stops.stopped else FinishReason(batch_reason or "stop")
        self._shown_chars += len(text)
        parts = Parts(text=text) if self._reader is None else self._read(self._reader, text)
        return parts, self._told()

    def _read(self, reader: OutputReader, text: str) -> Parts:
        """Take text apart, and count a token of reasoning: its marks belong to it."""
        reasoned = reader.reasoning
        parts = reader.push(text)
        self.reasoning_tokens += reasoned or reader.reasoning
        if reader.complete:
            self.finish_reason = FinishReason.STOP
        if self.finish_reason is not None:
            rest = reader.finish()
            parts = Parts(
                text=parts.text + rest.text,
                reasoning=parts.reasoning + rest.reasoning,
                tool_calls=parts.tool_calls + rest.tool_calls,
            )
        if self.finish_reason is FinishReason.STOP and reader.called:
            self.finish_reason = FinishReason.TOOL_CALLS
        return parts

    def _told(self) -> tuple[TokenLogprobs, ...]:
        """Those of tokens whose text began to be shown; at an end without a stop string, all that are left."""
        told = []
        rest = self.finish_reason is not None and not self._stops.stopped
        while self._waiting and (rest or self._waiting[0][0] < self._shown_chars):
            told.append(self._waiting.popleft()[1])
        return tuple(told)
