"""Draft models in this process, on tiny random models: the answer is the one without, whatever is proposed."""

from __future__ import annotations

import json
import time
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from manent.adapters.inference.batch_limits import BatchLimits
from manent.adapters.inference.drafted_batch import DraftedBatch
from manent.adapters.inference.drafting import DraftModel, can_be_cut
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.prefix_cache import PrefixLimits
from manent.adapters.inference.prefix_reuse import PrefixReuse
from manent.adapters.inference.protocol import Delta, Finished, Generate, RunnerFrame
from manent.domain.drafting import DraftUse
from tests.support.model_kinds import VOCABULARY, model_of_kind
from tests.support.tiny_batches import Silence, answer, answers, asking, tiny_batch

PROMPT = [(7 * number) % 61 for number in range(70)]
CHUNK_TOKENS = 16
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "seed": 5},
    "filtered": {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.01},
    "penalized": {"temperature": 0.8, "frequency_penalty": 0.5, "repetition_penalty": 1.2, "logit_bias": {3: 2.0}},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "choices": {"n": 2, "temperature": 1.0},
    "one token": {"max_tokens": 1},
    "two tokens": {"max_tokens": 2},
    "deterministic": {"deterministic": True},
}


class Always:
    """A pace that never rests."""

    proposals = 3

    def took(self, *_: object, **__: object) -> None:
        """Nothing is learnt."""


class Forgetful:
    """The model, but at every fourth evaluation another one: its proposals are chosen now and then."""

    def __init__(self, model: Any, other: Any) -> None:
        self.layers = model.layers
        self._model, self._other = model, other
        self._calls = 0

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        """Evaluate."""
        self._calls += 1
        logits: mx.array = self._model(tokens, cache=cache)
        return logits if self._calls % 4 else mx.roll(logits, 1, -1)


class Broken(Forgetful):
    """A draft model that fails after a while."""

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        """Evaluate, or fail."""
        if self._calls > 3:
            raise RuntimeError("no memory")
        return super().__call__(tokens, cache)


@pytest.fixture(scope="module")
def model() -> Any:
    """The model that is drafted for."""
    return model_of_kind("llama")


def drafted_batch(model: Any, draft: Any) -> DraftedBatch:
    """A batch with a draft model that is always used, and a prefix cache."""
    return DraftedBatch(
        model,
        DraftModel(model=draft, weights_digest="sha256:d", tokens=3, vocabulary_size=VOCABULARY),
        pace=Always(),
        eos_token_ids=[],
        vocabulary_size=VOCABULARY,
        new_detokenizer=Silence,
        token_bytes=lambda _: b"",
        limits=BatchLimits(prefill_chunk_tokens=CHUNK_TOKENS),
        prefixes=PrefixReuse(
            lambda: make_prompt_cache(model), limits=PrefixLimits(memory_bytes=10**8, keep_min_tokens=4)
        ),
    )


def finished(batch: TextBatch, request: Generate) -> Finished:
    """How a request ends."""
    batch.add(request, received_s=time.monotonic())
    frames: list[RunnerFrame] = []
    while batch.active:
        frames += batch.step()
    (end,) = (frame for frame in frames if isinstance(frame, Finished))
    return end


@pytest.mark.parametrize("parameters", ASKED.values(), ids=ASKED)
def test_the_answer_is_the_one_without(model: Any, parameters: dict[str, Any]) -> None:
    """Proposals that are chosen, and such that are not; the next turn finds as much in the prefix cache."""
    plain, drafted = tiny_batch(model), drafted_batch(model, Forgetful(model, None))
    asked = {"max_tokens": 40, **parameters}
    first = answer(plain, asking(1, PROMPT, **asked))
    assert answer(drafted, asking(1, PROMPT, **asked)) == first
    again = asking(2, [*PROMPT, *first[0][:20], 5, 6, 7], **asked)
    assert answer(drafted, again) == answer(plain, again)
    if asked["max_tokens"] > 2 and not {"n", "deterministic"} & asked.keys():
        assert drafted.steps < plain.steps


def test_proposals_and_what_was_chosen_are_counted(model: Any) -> None:
    """The model as its own draft: everything is chosen. Deterministic requests and pairs of choices go without."""
    batch = drafted_batch(model, model)
    use = finished(batch, asking(1, PROMPT, max_tokens=41, scope=None)).draft
    # It reads the prompt of 70 tokens first, 16 with each of the first tokens of the answer.
    assert use == DraftUse(weights_digest="sha256:d", proposed_tokens=27, accepted_tokens=27)
    assert finished(batch, asking(2, PROMPT, deterministic=True, scope=None)).draft is None


@pytest.mark.parametrize("place", range(1, 7))
def test_an_end_of_sequence_among_proposals_ends_the_answer(model: Any, place: int) -> None:
    """Wherever it is: nothing behind it is told, and the tokens are counted right."""
    said = answer(tiny_batch(model), asking(1, PROMPT, max_tokens=12, temperature=1.0, scope=None))[0]
    batch = drafted_batch(model, model)
    end = finished(batch, asking(1, PROMPT, max_tokens=12, temperature=1.0, stop_token_ids=(said[place],)))
    assert end.usage.completion_tokens == said.index(said[place]) + 1
    assert end.finish_reasons == ("stop",)
    longer = asking(2, [*PROMPT, *said, 1, 2, 3], max_tokens=12)
    assert answer(batch, longer)[0] == answer(tiny_batch(model), longer)[0]


def test_others_join_and_leave(model: Any) -> None:
    """The state is a plain one after each step: who was drafted for goes on beside others, and alone again."""
    batch = drafted_batch(model, Forgetful(model, None))
    long, short = asking(1, PROMPT, max_tokens=60, temperature=1.0), asking(2, PROMPT[9:], max_tokens=8)
    expected = {number: tokens for number, (tokens, *_) in answers(tiny_batch(model), long, short).items()}
    told: dict[int, list[int]] = {1: [], 2: []}
    batch.add(long, received_s=time.monotonic())
    joins = [12, 30]
    while batch.active:
        for frame in batch.step():
            if isinstance(frame, Delta):
                told[frame.id] += frame.token_ids
        if joins and len(told[1]) > joins[0]:
            batch.cancel(short.id)
            told[2].clear()
            batch.add(short, received_s=time.monotonic())
            joins.pop(0)
    assert told == expected


def test_a_cancelled_request_leaves_nothing_behind(model: Any) -> None:
    """The next one is drafted for from its own beginning."""
    batch = drafted_batch(model, model)
    batch.add(asking(1, PROMPT, max_tokens=40), received_s=time.monotonic())
    for _ in range(12):
        batch.step()
    batch.cancel(1)
    asked = asking(2, PROMPT[5:], max_tokens=20)
    assert answer(batch, asked)[0] == answer(tiny_batch(model), asked)[0]


def test_a_draft_model_that_fails_costs_no_answer(model: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The request goes on without it; the server's log is told where it failed, and not in which words."""
    asked = asking(1, PROMPT, max_tokens=30)
    assert answer(drafted_batch(model, Broken(model, None)), asked) == answer(tiny_batch(model), asked)
    said = json.loads(capfd.readouterr().err.removeprefix("manent: "))
    assert said["event"] == "the draft model failed"
    assert said["exception"].endswith("\nRuntimeError")


def test_states_that_cannot_be_cut_are_known() -> None:
    """Sliding windows and recurrent layers keep no tokens that could be taken back."""
    kinds = {kind: can_be_cut(model_of_kind(kind)) for kind in ("llama", "gemma3_text", "mamba2")}
    assert kinds == {"llama": True, "gemma3_text": False, "mamba2": False}
