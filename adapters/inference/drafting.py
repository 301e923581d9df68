"""Speculative decoding: a draft model proposes tokens, and the model evaluates all of them at once (arXiv 2211.17192).

Only for a sequence that is alone. What is handed out is what the model chooses, with the noise of that position: the
same tokens as without. After each step the batch is in the state of a plain one, so that others join at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import mlx.core as mx
from mlx_lm.generate import GenerationBatch
from mlx_lm.models.cache import KVCache, make_prompt_cache

from manent.adapters.inference.joining import JoiningGenerator
from manent.adapters.inference.runner_log import say
from manent.adapters.inference.sampling import TokenChooser


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftModel:
    """A loaded draft model, how many tokens it proposes at once, at most, and how many the model knows."""

    model: Any
    weights_digest: str
    tokens: int
    vocabulary_size: int


class Pace(Protocol):
    """When to draft; see ``draft_pace``."""

    @property
    def proposals(self) -> int:
        """How many tokens are proposed for the next step; 0 for none."""
        ...

    def took(self, step_s: float, *, tokens: int, drafted: bool) -> None:
        """A step took so long and gave so many tokens, with proposals or without."""
        ...


@dataclass(frozen=True, slots=True)
class DraftHooks:
    """What a generator asks of the batch, and tells it: the sequence's chooser where it may be drafted for; counts."""

    chooser: Callable[[int], TokenChooser | None]
    proposed: Callable[[int, int, int], None]


def can_be_cut(model: Any) -> bool:
    """Whether tokens can be taken back from a model's state, at any place: only plain keys and values allow that."""
    return all(type(cache) is KVCache for cache in make_prompt_cache(model))


class Drafter:
    """The draft model beside one sequence, of which it has read the first tokens."""

    def __init__(self, draft: DraftModel, uid: int, *, chunk_tokens: int) -> None:
        self.uid = uid
        self._draft = draft
        self._chunk_tokens = chunk_tokens
        self._caches = make_prompt_cache(draft.model)
        self._read_tokens = 0

    def catch_up(self, tokens: Sequence[int]) -> bool:
        """Read one more piece of the sequence; whether it has read all but a piece before that."""
        behind = tokens[self._read_tokens :]
        if len(behind) <= self._chunk_tokens:
            return True
        self._draft.model(mx.array([behind[: self._chunk_tokens]]), cache=self._caches)
        mx.eval([cache.state for cache in self._caches])
        self._read_tokens += self._chunk_tokens
        return False

    def propose(self, tokens: Sequence[int], latest: int, count: int, chooser: TokenChooser) -> list[int]:
        """Tokens that may come behind ``tokens`` and ``latest``."""
        inputs = mx.array([[*tokens[self._read_tokens :], latest]])
        self._read_tokens = len(tokens) + count
        proposed = []
        for ahead in range(count):
            logits = self._fitted(self._draft.model(inputs, cache=self._caches)[:, -1, :])
            token = chooser.propose(logits - mx.logsumexp(logits, axis=-1, keepdims=True), ahead=ahead)
            mx.async_eval(token)  # type: ignore[no-untyped-call]  # MLX's stubs lack it
            proposed.append(token)
            inputs = token[:, None]
        return [cast("int", token.item()) for token in proposed]

    def _fitted(self, logits: mx.array) -> mx.array:
        """As many as the model has: vocabularies of one family are padded to unlike sizes."""
        logits = logits[:, : self._draft.vocabulary_size]
        if missing := self._draft.vocabulary_size - logits.shape[-1]:
            logits = mx.pad(logits, [(0, 0), (0, missing)], constant_values=-mx.inf)
        return logits

    def cut(self, tokens: int) -> None:
        """Forget what it read beyond so many tokens of the sequence."""
        if (beyond := self._read_tokens - tokens) > 0:
            for cache in self._caches:
                cache.trim(beyond)
            self._read_tokens = tokens


class SpeculativeBatch(GenerationBatch):
    """mlx-lm's sequences that generate; where there is one, it can be given several tokens in a step."""

    @property
    def latest_token(self) -> int:
        """Of the only sequence, what was chosen last and not evaluated yet."""
        return cast("int", self._next_tokens.item())

    @property
    def left_tokens(self) -> int:
        """How many the only sequence may still be given."""
        return self.max_tokens[0] - self._num_tokens[0]

    def verify(self, chooser: TokenChooser, proposed: list[int]) -> tuple[int, list[Any]]:
        """Evaluate proposals at once, keep those that are chosen, and take back the others from the state.

        Returns:
            How many were chosen, and the reports on tokens, as ``next`` has them: at most one more than that.
        """
        latest = self.latest_token
        logits = self.model(mx.array([[latest, *proposed]]), cache=self.prompt_cache)
        chosen: list[int] = []
        logprobs = logits[:, 0, :]
        while chosen == proposed[: len(chosen)] and len(chosen) <= len(proposed):
            logprobs = self._processed([latest, *chosen][-1], logits[:, len(chosen), :])
            chosen.append(cast("int", chooser(logprobs).item()))
        told = [latest, *chosen[:-1]]
        self._take_back(len(proposed) + 1 - len(told))
        self.tokens[0].extend(told)
        self._current_tokens = mx.array(told[-1:], dtype=mx.uint32)  # type: ignore[assignment]  # mlx-lm begins with None
        self._current_logprobs, self._next_logprobs = self._next_logprobs, [logprobs[0]]
        self._next_tokens = mx.array(chosen[-1:], dtype=mx.uint32)
        return len(chosen) - 1, self._hand_out(told)

    def _processed(self, token: int, logits: mx.array) -> mx.array:
        """Log probabilities behind a token, after the sequence's logits processors, as mlx-lm makes them."""
        if self.logits_processors and (processors := self.logits_processors[0]):
            buffer: Any = self._token_context[0]
            context = buffer.update_and_fetch(mx.array([token], dtype=mx.uint32))
            for processor in processors:
                logits = processor(context, logits)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)

    def _hand_out(self, told: list[int]) -> list[Any]:
        """The report on each token; behind one that ends the sequence nothing is kept."""
        reports = []
        for place, token in enumerate(told):
            self._num_tokens[0] += 1
            reason = "length" if self._num_tokens[0] >= self.max_tokens[0] else None
            reason = "stop" if self._matchers[0].advance(token) else reason
            reports.append(self.Response(self.uids[0], token, self._current_logprobs[0], reason, None, None))
            if reason is not None:
                beyond = len(told) - 1 - place
                self._take_back(beyond)
                del self.tokens[0][len(self.tokens[0]) - beyond :]
                self.extract_cache(0)  # the prefix cache keeps it then
                self.filter([])
                break
        return reports

    def _take_back(self, tokens: int) -> None:
        for cache in self.prompt_cache if tokens else ():
            cache.trim(tokens)


class DraftingGenerator(JoiningGenerator):
    """A batch whose only sequence gets several tokens a step where a draft model guesses them."""

    def __init__(self, model: Any, draft: DraftModel, pace: Pace, hooks: DraftHooks, **limits: Any) -> None:
        super().__init__(model, **limits)
        self._generation_batch = SpeculativeBatch.empty(self.model, self.sampler)
        self._draft = draft
        self._draft_pace = pace
        self._hooks = hooks
        self._chunk_tokens: int = limits["prefill_step_size"]
        self._drafter: Drafter | None = None
        self._given_up: int | None = None

    def remove(self, uids: list[int], return_prompt_caches: bool = False) -> Any:  # noqa: FBT001, FBT002 (mlx-lm's)
        """See mlx-lm; a draft model's state goes with its sequence."""
        if self._drafter is not None and self._drafter.uid in uids:
            self._drafter = None
        return super().remove(uids, return_prompt_caches)  # type: ignore[no-untyped-call]  # mlx-lm is partly typed

    def _next(self) -> tuple[list[Any], list[Any]]:
        batch = self._generation_batch
        alone = len(batch) == 1 and not self._currently_processing and not self._unprocessed_sequences
        chooser = self._hooks.chooser(batch.uids[0]) if alone else None
        if chooser is None or batch.uids[0] == self._given_up:
            return super()._next()
        began_s = time.monotonic()
        caught_up, proposed = self._proposals(batch, chooser)
        prompts, tokens = ([], self._verified(batch, chooser, proposed)) if proposed else super()._next()
        if caught_up:
            self._draft_pace.took(time.monotonic() - began_s, tokens=len(tokens), drafted=bool(proposed))
        if not len(batch):
            self._drafter = None
        return prompts, tokens

    def _proposals(self, batch: SpeculativeBatch, chooser: TokenChooser) -> tuple[bool, list[int]]:
        """Whether the draft model has read what there is, and its proposals; what it fails at costs time alone."""
        uid, tokens = batch.uids[0], batch.tokens[0]
        count = min(self._draft_pace.proposals, batch.left_tokens - 1)
        if count < 1:
            return True, []
        try:
            if self._drafter is None or self._drafter.uid != uid:
                self._drafter = Drafter(self._draft, uid, chunk_tokens=self._chunk_tokens)
            if not self._drafter.catch_up(tokens):
                return False, []
            return True, self._drafter.propose(tokens, batch.latest_token, count, chooser)
        except Exception as error:  # noqa: BLE001 (whatever the draft model raises must not fail the request)
            self._drafter, self._given_up = None, uid
            say("the draft model failed", error=error)
            return False, []

    def _verified(self, batch: SpeculativeBatch, chooser: TokenChooser, proposed: list[int]) -> list[Any]:
        uid, known = batch.uids[0], len(batch.tokens[0])
        accepted, reports = batch.verify(chooser, proposed)
        self._hooks.proposed(uid, len(proposed), accepted)
        if self._drafter is not None:
            self._drafter.cut(known + 1 + accepted)
        return reports
