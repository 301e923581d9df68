"""mlx-vlm's continuous batching behind the interface of mlx-lm's, as far as ``TextBatch`` uses it.

What is different inside: mlx-vlm has one sampler for all, so each sequence chooses its token in a logits processor and
leaves the sampler no choice; it has one set of stop tokens, so they are looked for here; and it cuts a long prompt into
chunks without cutting Qwen3-VL's deep features with it, so a prompt with images is evaluated in one piece.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
from mlx_vlm.generate.ar import BatchGenerator

from manent.adapters.inference.batch_limits import BatchLimits
from manent.adapters.inference.sampling import TokenChooser


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPrompt:
    """A prompt as a language model takes it: tokens, and what mlx-vlm made of them and of the images."""

    token_ids: list[int]
    keywords: dict[str, Any]
    has_images: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReport:
    """How far a prompt is: tokens evaluated, and all."""

    uid: int
    progress: tuple[int, int]
    end_of_prompt: bool
    end_of_segment: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReport:
    """A token that is handed out; with a reason, it is its sequence's last."""

    uid: int
    token: int
    finish_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence:
    uid: int
    prompt: EmbeddedPrompt
    chooser: TokenChooser
    max_tokens: int
    stop_token_ids: frozenset[int]


class VisionGenerator:
    """The sequences of one language model. Prompts are evaluated one after another, in the order of their arrival.

    ``prompt_tokens`` counts those of prompts that were evaluated so far.
    """

    def __init__(self, language_model: Any, limits: BatchLimits) -> None:
        self.prefill_step_size = limits.prefill_chunk_tokens
        self._inner = BatchGenerator(
            language_model,
            SimpleNamespace(stopping_criteria=_NeverStops()),
            sampler=lambda logprobs: mx.argmax(logprobs, axis=-1),
            completion_batch_size=limits.decode_sequences,
            prefill_batch_size=1,
            compute_logprobs=False,
        )
        self._waiting: deque[_Sequence] = deque()
        self._running: dict[int, _Sequence] = {}
        self._prefilling: tuple[int, int] | None = None
        self._next_uid = 0
        self.prompt_tokens = 0
        # Where the keeper of prefix caches, which has nothing to keep here, looks for sequences.
        self._generation_batch = self._prompt_batch = SimpleNamespace(uids=[])

    def insert(
        self, prompt: EmbeddedPrompt, *, chooser: TokenChooser, max_tokens: int, stop_token_ids: Collection[int]
    ) -> int:
        """Let a sequence join; its number."""
        uid, self._next_uid = self._next_uid, self._next_uid + 1
        self._waiting.append(
            _Sequence(
                uid=uid,
                prompt=prompt,
                chooser=chooser,
                max_tokens=max_tokens,
                stop_token_ids=frozenset(stop_token_ids),
            )
        )
        return uid

    def next(self) -> tuple[list[PromptReport], list[TokenReport]]:
        """Evaluate once: one token of every sequence, one chunk of the prompt whose turn it is."""
        if self._waiting and self._prefilling is None:
            self._begin(self._waiting.popleft())
        completed, handed_out = self._inner.next()  # type: ignore[no-untyped-call]  # mlx-vlm's
        tokens = [self._token(response) for response in handed_out if response.uid in self._running]
        return self._prompts({prompt.uid for prompt in completed}), tokens

    def remove(self, uids: Sequence[int]) -> None:
        """Take sequences out, wherever they are."""
        wanted = set(uids)
        self._waiting = deque(sequence for sequence in self._waiting if sequence.uid not in wanted)
        for inner_uid in [inner for inner, sequence in self._running.items() if sequence.uid in wanted]:
            self._leave(inner_uid)

    def close(self) -> None:
        """Give back what mlx-vlm holds."""
        self._inner.close()  # type: ignore[no-untyped-call]  # mlx-vlm's

    def _begin(self, sequence: _Sequence) -> None:
        prompt = sequence.prompt
        self._inner.prefill_step_size = len(prompt.token_ids) if prompt.has_images else self.prefill_step_size
        (inner_uid,) = self._inner.insert(
            [prompt.token_ids],
            [sequence.max_tokens],
            prompt_kwargs=[dict(prompt.keywords)],
            logits_processors=[[_Chooses(sequence.chooser)]],
        )
        self._running[inner_uid] = sequence
        self._prefilling = inner_uid, 0

    def _prompts(self, completed: Collection[int]) -> list[PromptReport]:
        if self._prefilling is None:
            return []
        inner_uid, before = self._prefilling
        sequence = self._running[inner_uid]
        total, ended = len(sequence.prompt.token_ids), inner_uid in completed
        step = total if sequence.prompt.has_images else self.prefill_step_size
        done = total if ended else min(before + step, total - 1)
        self.prompt_tokens += done - before
        self._prefilling = None if ended else (inner_uid, done)
        return [PromptReport(uid=sequence.uid, progress=(done, total), end_of_prompt=ended)]

    def _token(self, response: Any) -> TokenReport:
        sequence, reason = self._running[response.uid], response.finish_reason
        if response.token in sequence.stop_token_ids:
            self._leave(response.uid)
            reason = "stop"
        elif reason is not None:
            del self._running[response.uid]
        return TokenReport(uid=sequence.uid, token=response.token, finish_reason=reason)

    def _leave(self, inner_uid: int) -> None:
        self._inner.remove(inner_uid)
        self._running.pop(inner_uid, None)
        if self._prefilling is not None and self._prefilling[0] == inner_uid:
            self._prefilling = None


class _NeverStops:
    """In place of mlx-vlm's stop tokens."""

    def add_eos_token_ids(self, _token_ids: object) -> None:
        """There are none to add."""

    def __call__(self, _token: int) -> bool:
        return False


class _Chooses:
    """A logits processor that leaves one token, the chosen one."""

    def __init__(self, chooser: TokenChooser) -> None:
        self._chooser = chooser

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        seen = self._chooser.see_logits(tokens, logits) if self._chooser.needs_logits else logits
        token = self._chooser(seen - mx.logsumexp(seen, axis=-1, keepdims=True))
        return mx.where(mx.arange(logits.shape[-1])[None] == token[:, None], 0.0, -mx.inf)

    def process_last_token(self, token: int, logits: mx.array) -> mx.array:
        """The same; mlx-vlm then does not rebuild the whole context for each token."""
        return self(mx.array([token]), logits)
