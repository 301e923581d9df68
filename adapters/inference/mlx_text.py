"""Continuous batching of text generation with mlx-lm: requests join and leave between evaluations.

Everything here belongs to one thread, the one that loaded the model: MLX streams are thread-local. Which requests may
be evaluated after one evaluation failed is decided in ``trials``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import mlx.core as mx
from mlx_lm.generate import StopSequences
from mlx_lm.models.cache import make_prompt_cache

from manent.adapters.inference.batch_entry import (
    BatchEntry,
    BatchSequence,
    evaluation_failed,
    refusal_of,
    signs_of_life,
    told_logprobs,
)
from manent.adapters.inference.batch_limits import BatchLimits
from manent.adapters.inference.guide import Thinking
from manent.adapters.inference.joining import JoiningGenerator
from manent.adapters.inference.output_rules import OutputRules
from manent.adapters.inference.pacing import PrefillPace, paced_step
from manent.adapters.inference.prefix_cache import PrefixLimits
from manent.adapters.inference.prefix_reuse import PrefixReuse, Warm
from manent.adapters.inference.protocol import Failed, Generate, RunnerFrame
from manent.adapters.inference.sequence import Detokenizer, GeneratedRequest, GeneratedText, placed
from manent.adapters.inference.stop_text import StopMatcher
from manent.adapters.inference.token_text import TokenBytes
from manent.adapters.inference.trials import Trials
from manent.domain.generation import FinishReason

_DISK_WAIT_S = 0.01
"""How long a step waits for the disk or a grammar where nothing can be evaluated meanwhile."""


class TextBatch:
    """The sequences that one model is generating, and the evaluation steps that move them all on."""

    def __init__(
        self,
        model: Any,
        *,
        eos_token_ids: Collection[int],
        vocabulary_size: int,
        new_detokenizer: Callable[[], Detokenizer],
        token_bytes: TokenBytes,
        limits: BatchLimits | None = None,
        prefixes: PrefixReuse | None = None,
        rules: OutputRules | None = None,
    ) -> None:
        self._model = model
        self.prefixes = prefixes or PrefixReuse(lambda: make_prompt_cache(model), limits=PrefixLimits(memory_bytes=0))
        self._eos_token_ids = frozenset(eos_token_ids)
        self._vocabulary_size = vocabulary_size
        self._new_detokenizer = new_detokenizer
        self._token_bytes = token_bytes
        self._rules = rules
        self._limits = limits or BatchLimits()
        self._entries: dict[int, BatchEntry] = {}
        self._sequences: dict[int, BatchSequence] = {}
        self._trials = Trials()
        self._pace = PrefillPace(self._limits.prefill_chunk_tokens)
        self._generator = self._new_generator()
        self.steps = 0

    @property
    def active(self) -> int:
        """How many requests are waiting, being prefilled or generating."""
        return len(self._entries)

    def add(self, request: Generate, *, received_s: float) -> list[RunnerFrame]:
        """Let a request join; the answer is a Failed frame if it cannot be evaluated, and empty otherwise.

        What would fail in the middle of a batch, and so take others with it, is refused here.
        """
        if (refusal := refusal_of(request, vocabulary_size=self._vocabulary_size)) is not None:
            return [refusal]
        thinking = None if self._rules is None else self._rules.thinking(request)
        try:
            generated = GeneratedRequest(request, partial(self._new_text, request, thinking), received_s=received_s)
        except ValueError as error:
            return [Failed(id=request.id, code="invalid_value", message=str(error))]
        entry = BatchEntry(request, generated, stop_token_ids=self._eos_token_ids, thinking=thinking)
        self._entries[request.id] = entry
        return self._prepare(entry)

    def _new_text(self, request: Generate, thinking: Thinking | None) -> GeneratedText:
        reader = None if self._rules is None else self._rules.new_reader(request, thinking)
        detokenizer = placed(self._new_detokenizer(), request)
        return GeneratedText(detokenizer, StopMatcher(request.parameters.stop), reader)

    def _prepare(self, entry: BatchEntry) -> list[RunnerFrame]:
        """Let a request join as soon as its grammar is compiled and what it can reuse is read."""
        try:
            if self._rules is not None and self._rules.must_compile(entry):
                return []
        except Exception as error:  # noqa: BLE001 (what fails in making one request's grammar fails this request alone)
            self._forget(entry.request.id)
            return [evaluation_failed(entry.request, error)]
        if not self.prefixes.must_read(entry.request):
            self._admit(entry)
        return []

    def cancel(self, request_id: int) -> None:
        """Drop a request before its next evaluation; an unknown one has ended already."""
        if request_id in self._entries:
            self._drop(request_id)

    def step(self) -> list[RunnerFrame]:
        """Evaluate once: one token of every generating sequence, one chunk of every prompt that is being prefilled."""
        began_s = time.monotonic()
        frames = self._let_in()
        if not self._sequences:
            return frames + self._progress({})
        try:
            self.prefixes.keeper.before_step()
            decoding = sum(bool(one.tokens) and not one.entry.deterministic for one in self._sequences.values())
            prefilling = min(len(self._sequences) - decoding, self._limits.prefill_sequences)
            prompts, tokens = paced_step(self._generator, self._pace, decoding=decoding, prefilling=prefilling)
            self.steps += 1
            self.prefixes.keeper.after_step(prompts)
            batch_size = len({token.uid for token in tokens})
            for token in tokens:
                frames += self._take(token.uid, token.token, token.finish_reason, batch_size=batch_size)
            complete = [prompt.uid for prompt in prompts if prompt.end_of_prompt]
            for uid in complete:
                frames += self._take_early(uid, batch_size=len(complete))
        except Exception as error:  # noqa: BLE001 (whatever a model raises fails its request and not the runner)
            return frames + self._evaluation_failed(error) + self._progress({})
        processed = {}
        for prompt in prompts:
            if (sequence := self._sequences.get(prompt.uid)) is not None:
                generated = sequence.entry.generated
                generated.started(began_s)
                processed[sequence.entry.request.id] = generated.cached_tokens + prompt.progress[0]
                if sequence.entry.forks and prompt.progress[0] == prompt.progress[1] - 1:
                    self._fork(prompt.uid, sequence.entry)
        return frames + self._progress(processed)

    def _let_in(self) -> list[RunnerFrame]:
        """Let those join whose grammars were compiled or caches read, and the one whose trial begins."""
        frames: list[RunnerFrame] = []
        wait_s = 0 if self._sequences else _DISK_WAIT_S
        for request_id in () if self._rules is None else self._rules.arrived(wait_s=wait_s):
            frames += self._prepare(self._entries[request_id])
        for request_id in self.prefixes.arrived(wait_s=wait_s):
            if request_id in self._entries:
                self._admit(self._entries[request_id])
        handed_out = {request_id: entry.handed_out_tokens for request_id, entry in self._entries.items()}
        if (next_id := self._trials.next(handed_out)) is not None:
            self._enter(self._entries[next_id])
        return frames

    def _admit(self, entry: BatchEntry) -> None:
        """Let a request join now, or put it off until others' trials are over."""
        self._enter(entry) if self._trials.admits_newcomers else self._trials.put_off(entry.request.id)

    def _enter(self, entry: BatchEntry) -> None:
        """Hand a request to mlx-lm. Choices that begin with the same prompt share its evaluation: they wait for it."""
        first, *others = entry.open
        warm = self.prefixes.find(entry.request, first.known)
        if entry.generated.began_with(warm.use, cached_tokens=warm.tokens):
            self.prefixes.count(entry.request, warm)
        shares = len(first.known) - warm.tokens > 1 and not any(sequence.tokens for sequence in entry.open)
        entry.forks = others if shares else []
        self._insert(first, warm)
        for sequence in () if shares else others:
            self._insert(sequence, self.prefixes.find(entry.request, sequence.known))

    def _insert(self, sequence: BatchSequence, warm: Warm) -> None:
        """Hand a sequence to mlx-lm, with what of it need not be evaluated."""
        request = sequence.entry.request
        (uid,) = self._generator.insert_segments(
            [warm.segments],
            max_tokens=[request.parameters.max_tokens - len(sequence.tokens)],
            caches=[warm.caches],
            all_tokens=[sequence.known[: warm.tokens]],
            samplers=[sequence.chooser],
            logits_processors=[[sequence.chooser.see_logits] if sequence.chooser.needs_logits else []],
            stop_sequences=[StopSequences([[token] for token in sorted(sequence.entry.stop_token_ids)])],
        )
        self._sequences[uid] = sequence
        self.prefixes.keeper.follow(uid, request)

    def _fork(self, uid: int, entry: BatchEntry) -> None:
        """The first choice's prompt is evaluated up to its last token: let the others go on from there."""
        try:
            cache = self._generator.extract_cache([uid])[uid][0]
        except Exception:  # noqa: BLE001 (some models' caches cannot be taken out: each choice evaluates the prompt then)
            cache = None
        for sequence in entry.forks:
            known = sequence.known
            shared = Warm(segments=[known[-1:]], tokens=len(known) - 1, caches=cache)
            self._insert(sequence, self.prefixes.find(entry.request, known) if cache is None else shared)
        entry.forks = []

    def _take_early(self, uid: int, *, batch_size: int) -> list[RunnerFrame]:
        """The first token of a sequence whose prompt is complete, one whole evaluation before mlx-lm hands it out."""
        if (sequence := self._sequences.get(uid)) is None:
            return []
        token = sequence.chooser.latest_token()
        if token is None:
            return []
        last = len(sequence.tokens) + 1 == sequence.entry.request.parameters.max_tokens
        reason = FinishReason.LENGTH if last else None
        stops = token in sequence.entry.stop_token_ids
        frames = self._push(uid, token, FinishReason.STOP if stops else reason, batch_size)
        sequence.shown_early = True
        if uid not in self._sequences:
            self._remove([uid])
        return frames

    def _take(self, uid: int, token: int, batch_reason: str | None, *, batch_size: int) -> list[RunnerFrame]:
        """A token that mlx-lm hands out; with a reason, its sequence has left the generator already."""
        if (sequence := self._sequences.get(uid)) is None:
            return []  # dropped in this very step, with another choice of its request
        if sequence.shown_early:
            sequence.shown_early = False
            sequence.entry.generated.batched(batch_size)
            return []
        frames = self._push(uid, token, batch_reason, batch_size)
        if uid not in self._sequences and batch_reason is None:
            self._remove([uid])
        return frames

    def _push(self, uid: int, token: int, reason: str | None, batch_size: int) -> list[RunnerFrame]:
        sequence = self._sequences[uid]
        entry, generated = sequence.entry, sequence.entry.generated
        try:
            choice = sequence.chooser.take()
            logprobs = told_logprobs(token, choice, self._token_bytes) if entry.request.parameters.logprobs else None
            frames = generated.push(sequence.index, token, reason, batch_size=batch_size, logprobs=logprobs)
        except Exception as error:  # noqa: BLE001 (what fails on one request's token fails this request alone)
            self._drop(entry.request.id)
            return [evaluation_failed(entry.request, error)]
        sequence.tokens.append(token)
        if generated.ended(sequence.index):
            del self._sequences[uid]
            entry.open.remove(sequence)
        if not entry.open:
            self._forget(entry.request.id)
        return frames

    def _progress(self, processed: dict[int, int]) -> list[RunnerFrame]:
        return signs_of_life(self._entries.values(), processed, interval_s=self._limits.progress_interval_s)

    def _evaluation_failed(self, error: Exception) -> list[RunnerFrame]:
        """An evaluation is one graph for all, and its state is not to be trusted any more: begin anew without it.

        Whom it was about is found by trying: see ``trials``. What was handed out stands, and each goes on behind it.
        """
        entered = list(dict.fromkeys(sequence.entry.request.id for sequence in self._sequences.values()))
        failed = self._trials.failed(entered)
        self._generator.close()
        self._generator = self._new_generator()
        self._sequences.clear()
        mx.clear_cache()
        lost = [self._entries[request_id].request for request_id in failed]
        for request in lost:
            self._forget(request.id)
        for request_id in entered:
            if (entry := self._entries.get(request_id)) is not None:
                entry.begin_again()
        return [evaluation_failed(request, error) for request in lost]

    def _drop(self, request_id: int) -> None:
        """Take a request out, wherever it is."""
        uids = [uid for uid, sequence in self._sequences.items() if sequence.entry.request.id == request_id]
        self._remove(uids)
        for uid in uids:
            del self._sequences[uid]
        self._forget(request_id)

    def _forget(self, request_id: int) -> None:
        del self._entries[request_id]
        self._trials.forget(request_id)
        if self._rules is not None:
            self._rules.forget(request_id)

    def _remove(self, uids: list[int]) -> None:
        """Take sequences out of the generator; what was evaluated of them is kept for later."""
        self.prefixes.keeper.ended(uids)
        self._generator.remove(uids)

    def _new_generator(self) -> Any:
        generator = JoiningGenerator(self._model, **self._limits.of_mlx_lm)
        self.prefixes.keeper.attach(generator)
        return generator
