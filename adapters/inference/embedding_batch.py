"""Inputs of many requests, evaluated in batches of bounded size that all of them share fairly."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from manent.adapters.inference.embedding_frames import Embed, Embedded
from manent.adapters.inference.pooling import Pooling
from manent.adapters.inference.protocol import Failed, Progress, RunnerFrame

_CANCELLED_MAX = 4096

Evaluate = Callable[[Sequence[Sequence[int]]], mx.array]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingLimits:
    """How much is evaluated in one step, padding counted: what a cancellation or another request waits for."""

    inputs: int = 256
    tokens: int = 16_384
    progress_interval_s: float = 1.0


class EmbeddingBatch:
    """The requests that wait for vectors. Belongs to the thread that loaded the model."""

    def __init__(self, evaluate: Evaluate, pooling: Pooling, limits: EmbeddingLimits) -> None:
        self._evaluate = evaluate
        self._pooling = pooling
        self._limits = limits
        self._entries: dict[int, _Entry] = {}
        self._alone: set[int] = set()
        self._cancelled: dict[int, None] = {}
        self.steps = 0

    @property
    def active(self) -> int:
        """How many requests wait."""
        return len(self._entries)

    def add(self, request: Embed) -> None:
        """Let a request join, unless it was cancelled before; its inputs are tokens."""
        if request.id in self._cancelled:
            del self._cancelled[request.id]
        else:
            self._entries[request.id] = _Entry(request)

    def cancel(self, request_id: int) -> None:
        """Drop a request before its next evaluation; an unknown one has ended already, or its texts become tokens."""
        if self._entries.pop(request_id, None) is None:
            self._cancelled[request_id] = None
            if len(self._cancelled) > _CANCELLED_MAX:
                del self._cancelled[next(iter(self._cancelled))]
        self._alone.discard(request_id)

    def step(self) -> list[RunnerFrame]:
        """Evaluate once. Where that fails, its requests are tried one by one, and only those that fail again fail."""
        chosen = self._chosen()
        self.steps += 1
        try:
            rows = self._evaluate([tokens for _, _, tokens in chosen])
            mx.eval(rows)
            for number, (entry, index, _) in enumerate(chosen):
                entry.vectors[index] = self._finished(rows[number : number + 1], entry.request.dimensions)
        except Exception as error:  # noqa: BLE001 (whatever MLX raises fails its requests and not the runner)
            return self._failed({entry.request.id for entry, _, _ in chosen}, error)
        for entry, index, _ in chosen:
            entry.waiting.remove(index)
        ended = [entry for entry in self._entries.values() if not entry.waiting]
        for entry in ended:
            self.cancel(entry.request.id)
        return [*(entry.answer() for entry in ended), *self._progress()]

    def _chosen(self) -> list[tuple[_Entry, int, Sequence[int]]]:
        """Inputs of requests in turn, one of each, while the batch has room; next time, another request begins.

        A request's longest inputs come first, so that those that are padded to one length are of nearly one length.
        """
        turns = [entry for number, entry in self._entries.items() if not self._alone or number in self._alone]
        turns = turns[:1] if self._alone else turns
        first = turns[0].request.id
        self._entries[first] = self._entries.pop(first)
        chosen: list[tuple[_Entry, int, Sequence[int]]] = []
        longest, place = 0, 0
        while turns:
            for entry in turns:
                index = entry.waiting[place]
                tokens = entry.tokens(index)
                longest = max(longest, len(tokens))
                full = len(chosen) >= self._limits.inputs or longest * (len(chosen) + 1) > self._limits.tokens
                if chosen and full:
                    return chosen
                chosen.append((entry, index, tokens))
            place += 1
            turns = [entry for entry in turns if place < len(entry.waiting)]
        return chosen

    def _finished(self, row: mx.array, dimensions: int | None) -> bytes:
        vector = self._pooling.finished(row[:, :dimensions])
        return bytes(memoryview(mx.contiguous(vector)))  # type: ignore[arg-type]  # a buffer; its types do not say so

    def _failed(self, request_ids: set[int], error: Exception) -> list[RunnerFrame]:
        mx.clear_cache()
        if len(request_ids) > 1:
            self._alone |= request_ids
            return []
        (request_id,) = request_ids
        self.cancel(request_id)
        message = f"the model could not evaluate the inputs: {type(error).__name__}: {error}"[:1000]
        return [Failed(id=request_id, code="generation_failed", message=message)]

    def _progress(self) -> list[RunnerFrame]:
        now_s = time.monotonic()
        due = [entry for entry in self._entries.values() if now_s - entry.told_s >= self._limits.progress_interval_s]
        for entry in due:
            entry.told_s = now_s
        return [entry.progress() for entry in due]


class _Entry:
    """A request, the vectors that it has, and the indices of the inputs that wait, the longest first."""

    def __init__(self, request: Embed) -> None:
        self.request = request
        self.vectors: dict[int, bytes] = {}
        self.waiting = sorted(range(len(request.inputs)), key=lambda index: -len(request.inputs[index]))
        self.told_s = time.monotonic()

    def tokens(self, index: int) -> Sequence[int]:
        """The tokens of an input."""
        return [int(token) for token in self.request.inputs[index]]

    def answer(self) -> Embedded:
        """All vectors."""
        return Embedded(
            id=self.request.id,
            vectors=tuple(self.vectors[index] for index in range(len(self.request.inputs))),
            prompt_tokens=sum(map(len, self.request.inputs)),
        )

    def progress(self) -> Progress:
        """How many inputs are done."""
        total = len(self.request.inputs)
        return Progress(id=self.request.id, processed_tokens=total - len(self.waiting), total_tokens=total)
