"""Continuous batching in this process, with a tiny random model: joining, leaving, failing, and the text it gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.llama import Model, ModelArgs

from manent.adapters.inference.mlx_text import BatchLimits, TextBatch
from manent.adapters.inference.protocol import Delta, Failed, Finished, Generate, Progress, RunnerFrame
from manent.adapters.inference.sequence import GeneratedSequence
from manent.domain.generation import FinishReason
from tests.support.engines import parameters

VOCABULARY = 64
POISON = 63
"""A token that makes the faulty model fail."""


class Letters:
    """A detokenizer for the tiny vocabulary: each token is a letter; token 62 cannot be read."""

    def __init__(self) -> None:
        self.last_segment = ""

    def add_token(self, token: int) -> None:
        """Take a token in."""
        if token == 62:
            raise KeyError("no such letter")
        self.last_segment = chr(ord("0") + token)

    def finalize(self) -> None:
        """Nothing waits."""


class FaultyModel:
    """The tiny model, which fails when it is given the poisonous token, and never samples it. Counts evaluations."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = model.layers
        self.calls = 0

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        """Evaluate."""
        self.calls += 1
        if mx.any(inputs == POISON).item():
            raise RuntimeError("cannot evaluate this")
        logits: mx.array = self.model(inputs, cache=cache)
        return mx.where(mx.arange(VOCABULARY) == POISON, -mx.inf, logits)


@pytest.fixture(scope="module")
def model() -> FaultyModel:
    """A llama of two layers with random weights."""
    mx.random.seed(11)
    tiny = Model(
        ModelArgs(
            model_type="llama",
            hidden_size=32,
            num_hidden_layers=2,
            intermediate_size=64,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            vocab_size=VOCABULARY,
        )
    )
    mx.eval(tiny.parameters())
    return FaultyModel(tiny)


@pytest.fixture
def new_batch(model: FaultyModel) -> Callable[..., TextBatch]:
    """Makes batches on the tiny model."""

    def make(**limits: Any) -> TextBatch:
        return TextBatch(
            model,
            eos_token_ids=[],
            vocabulary_size=VOCABULARY,
            new_detokenizer=Letters,
            limits=BatchLimits(**limits),
        )

    return make


def ask(number: int, prompt: list[int], **effective: Any) -> Generate:
    """A request."""
    return Generate(id=number, token_ids=tuple(prompt), parameters=parameters(**effective))


def add(batch: TextBatch, *requests: Generate) -> None:
    """Let requests join."""
    for request in requests:
        assert batch.add(request, received_s=time.monotonic()) == []


def drain(batch: TextBatch) -> dict[int, list[RunnerFrame]]:
    """Step until nothing is left; the frames of each request."""
    frames: dict[int, list[RunnerFrame]] = {}
    while batch.active:
        for frame in batch.step():
            assert isinstance(frame, Delta | Finished | Failed | Progress)
            frames.setdefault(frame.id, []).append(frame)
    return frames


def tokens(frames: list[RunnerFrame]) -> list[int]:
    """The token ids of all deltas."""
    return [token for frame in frames if isinstance(frame, Delta) for token in frame.token_ids]


PROMPTS = {1: [1, 2, 3], 2: [9], 3: [5] * 40, 4: [7, 8, 7, 8, 30]}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_requests_get_the_same_tokens_alone_and_among_others(
    new_batch: Callable[..., TextBatch], temperature: float
) -> None:
    """Greedy or sampled, whatever joins and leaves beside them."""
    asked = {n: ask(n, p, max_tokens=6 + n, temperature=temperature, seed=n) for n, p in PROMPTS.items()}
    alone = {}
    for number, request in asked.items():
        batch = new_batch()
        add(batch, request)
        alone[number] = tokens(drain(batch)[number])
    batch = new_batch(prefill_chunk_tokens=4)
    add(batch, asked[1], asked[3])
    early = [frame for _ in range(3) for frame in batch.step() if isinstance(frame, Delta) and frame.id == 1]
    add(batch, asked[2], asked[4])
    together = drain(batch)
    together[1] = [*early, *together[1]]
    assert {number: tokens(frames) for number, frames in together.items()} == alone
    assert (
        max(frame.batch_size_max for frames in together.values() for frame in frames if isinstance(frame, Finished)) > 1
    )


def test_a_cancelled_request_is_not_evaluated_again(new_batch: Callable[..., TextBatch], model: FaultyModel) -> None:
    """Waiting, in prefill or generating: the next evaluation is without it, and the others go on."""
    batch = new_batch(prefill_chunk_tokens=4, prefill_sequences=2)
    add(batch, ask(1, [1, 2], max_tokens=500))
    batch.step()
    batch.step()
    add(batch, ask(2, [3] * 40, max_tokens=5), ask(3, [4, 5], max_tokens=5), ask(4, [6], max_tokens=5))
    batch.step()
    for number in (1, 2, 4, 99):
        batch.cancel(number)
    assert batch.active == 1
    rest = drain(batch)
    assert list(rest) == [3]
    assert len(tokens(rest[3])) == 5
    before = model.calls
    add(batch, ask(5, [1, 2], max_tokens=500))
    batch.step()
    batch.step()
    batch.cancel(5)
    assert batch.active == 0
    assert model.calls - before <= 3


def test_a_failing_evaluation_fails_its_batch_and_no_later_request(new_batch: Callable[..., TextBatch]) -> None:
    """The failure is told to those concerned, and what comes after is evaluated as if nothing had been."""
    batch = new_batch()
    add(batch, ask(1, [1, 2, 3], max_tokens=50))
    for _ in range(4):
        batch.step()
    add(batch, ask(2, [1, POISON, 3], max_tokens=5))
    failed = drain(batch)
    for number in (1, 2):
        failure = failed[number][-1]
        assert isinstance(failure, Failed)
        assert failure.code == "generation_failed"
        assert "cannot evaluate this" in failure.message
    add(batch, ask(3, [1, 2, 3], max_tokens=5))
    assert len(tokens(drain(batch)[3])) == 5


def test_a_token_that_cannot_be_read_fails_its_request_alone(new_batch: Callable[..., TextBatch]) -> None:
    """An error in one request's text is not the batch's."""
    unreadable = GeneratedSequence(ask(1, [1]), Letters(), received_s=0.0)
    with pytest.raises(KeyError):
        unreadable.push(62, None, batch_size=1)
    batch = new_batch()
    asked = [ask(n, [n], max_tokens=30, temperature=2.0, seed=n) for n in range(1, 9)]
    add(batch, *asked)
    ends = {number: frames[-1] for number, frames in drain(batch).items()}
    assert {type(end) for end in ends.values()} == {Finished, Failed}
    for number, end in ends.items():
        if isinstance(end, Failed):
            assert "KeyError" in end.message, number


@pytest.mark.parametrize(
    ("prompt", "effective", "code"),
    [
        ([], {}, "invalid_value"),
        ([1, VOCABULARY], {}, "generation_failed"),
        ([-1], {}, "generation_failed"),
        ([1], {"max_tokens": 0}, "invalid_value"),
        ([1], {"stop": [""]}, "invalid_value"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_it_joins(
    new_batch: Callable[..., TextBatch], prompt: list[int], effective: dict[str, Any], code: str
) -> None:
    """Such a request must not take others with it."""
    batch = new_batch()
    (refused,) = batch.add(ask(1, prompt, **effective), received_s=0.0)
    assert isinstance(refused, Failed)
    assert (refused.code, batch.active) == (code, 0)


def test_a_request_that_produces_nothing_yet_shows_that_it_lives(new_batch: Callable[..., TextBatch]) -> None:
    """In prefill and while it waits for a place: a long prompt is not a hang."""
    batch = new_batch(prefill_chunk_tokens=4, prefill_sequences=1, decode_sequences=1, progress_interval_s=0.0)
    add(batch, ask(1, [1] * 21, max_tokens=1), ask(2, [2] * 3, max_tokens=1))
    frames = drain(batch)
    shown = {n: [f.processed_tokens for f in fs if isinstance(f, Progress)] for n, fs in frames.items()}
    assert shown[1] == sorted(shown[1])
    assert shown[1][-1] == 20
    assert len(shown[1]) > 4
    assert shown[2][0] == 0
    assert all(isinstance(fs[-1], Finished) for fs in frames.values())


def test_a_stop_string_ends_its_sequence_only(new_batch: Callable[..., TextBatch]) -> None:
    """The others go on, and the tokens that made up the stop string are counted."""
    batch = new_batch()
    add(batch, ask(1, [1, 2, 3], max_tokens=12))
    whole = "".join(frame.text for frame in drain(batch)[1] if isinstance(frame, Delta))
    stop = whole[4:7]
    add(batch, ask(2, [1, 2, 3], max_tokens=12, stop=[stop]), ask(3, [1, 2, 3], max_tokens=12))
    frames = drain(batch)
    end = frames[2][-1]
    assert isinstance(end, Finished)
    assert end.finish_reason is FinishReason.STOP
    assert "".join(frame.text for frame in frames[2] if isinstance(frame, Delta)) == whole[: whole.find(stop)]
    assert end.usage.completion_tokens == len(tokens(frames[2])) == whole.find(stop) + 3
    assert len(tokens(frames[3])) == 12


def test_the_first_token_comes_with_the_evaluation_that_makes_it(
    new_batch: Callable[..., TextBatch], model: FaultyModel
) -> None:
    """mlx-lm would hand it out one evaluation later; and where one token is all, nothing else is evaluated."""
    batch = new_batch()
    add(batch, ask(1, [1], max_tokens=3), ask(2, [2], max_tokens=1))
    before = model.calls
    first = [frame for frame in batch.step() if not isinstance(frame, Progress)]
    assert model.calls == before + 1
    assert [(type(frame), getattr(frame, "id", 0)) for frame in first] == [(Delta, 1), (Delta, 2), (Finished, 2)]
    rest = drain(batch)
    assert list(rest) == [1]
    assert len(tokens(rest[1])) == 2
