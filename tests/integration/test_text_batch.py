"""Continuous batching in this process, with a tiny random model: joining, leaving, failing, and the text it gives."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.llama import Model, ModelArgs

from manent.adapters.inference.batch_limits import BatchLimits
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.protocol import Delta, Failed, Finished, Generate, Progress, RunnerFrame
from manent.adapters.inference.sequence import GeneratedRequest, GeneratedText
from manent.adapters.inference.stop_text import StopMatcher
from manent.domain.generation import FinishReason
from tests.support.sampling import parameters

VOCABULARY = 64
POISON = 63
"""A token that makes the faulty model fail."""
NAN_TOKEN = 61
"""A token after which the faulty model gives no numbers."""


UNREADABLE = 62
TIE = 1e-3
"""Log probabilities nearer than this may change places with the shape of the batch."""


class Letters:
    """A detokenizer for the tiny vocabulary: each token is a letter; one cannot be read."""

    def __init__(self) -> None:
        self.last_segment = ""

    def add_token(self, token: int) -> None:
        """Take a token in."""
        if token == UNREADABLE:
            raise KeyError("no such letter")
        self.last_segment = chr(ord("0") + token)

    def finalize(self) -> None:
        """Nothing waits."""


class FaultyModel:
    """The tiny model, which fails when it is given the poisonous token, and samples it only where a test says so.

    Counts evaluations, and tokens in them.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = model.layers
        self.calls = 0
        self.tokens = 0
        self.samples_poison = False
        self.sequences_max = 100

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        """Evaluate."""
        self.calls += 1
        self.tokens += inputs.size
        if mx.any(inputs == POISON).item():
            raise RuntimeError("cannot evaluate this")
        if inputs.shape[0] > self.sequences_max:
            raise RuntimeError("out of memory")
        logits: mx.array = self.model(inputs, cache=cache)
        logits = mx.where((inputs == NAN_TOKEN)[:, :, None], mx.nan, logits)
        forbidden = mx.array([NAN_TOKEN] if self.samples_poison else [NAN_TOKEN, POISON])
        return mx.where((mx.arange(VOCABULARY)[:, None] == forbidden).any(axis=-1), -mx.inf, logits)


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
            token_bytes=lambda token: chr(ord("0") + token).encode(),
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


def drain(batch: TextBatch, *, before: int = 0, then: Sequence[Generate] = ()) -> dict[int, list[RunnerFrame]]:
    """Step until nothing is left; the frames of each request. Some may join after so many steps."""
    frames: dict[int, list[RunnerFrame]] = {}
    while batch.active:
        if before == 0:
            add(batch, *then)
        before -= 1
        for frame in batch.step():
            assert isinstance(frame, Delta | Finished | Failed | Progress)
            frames.setdefault(frame.id, []).append(frame)
    return frames


def tokens(frames: list[RunnerFrame], index: int = 0) -> list[int]:
    """The token ids of a choice's deltas."""
    return [t for frame in frames if isinstance(frame, Delta) and frame.index == index for t in frame.token_ids]


def failure_of(frames: list[RunnerFrame]) -> str:
    """What the one failure of a request says; it was told nothing after that."""
    (failed,) = [frame for frame in frames if isinstance(frame, Failed)]
    assert frames[-1] is failed
    assert failed.code == "generation_failed"
    return failed.message


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


def alone(new_batch: Callable[..., TextBatch], request: Generate) -> list[int]:
    """The tokens that a request gets with nobody beside it."""
    return tokens(drain_alone(new_batch, request))


def drain_alone(new_batch: Callable[..., TextBatch], request: Generate) -> list[RunnerFrame]:
    """The frames that a request gets with nobody beside it."""
    batch = new_batch()
    add(batch, request)
    return drain(batch)[request.id]


@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_failing_evaluation_fails_the_request_that_it_is_about(
    new_batch: Callable[..., TextBatch], before: int
) -> None:
    """The others go on behind what they were given, to the same end as alone; nothing is said twice."""
    others = [ask(n, [n, n + 1], max_tokens=12, temperature=float(n % 2), seed=n) for n in range(1, 5)]
    late = ask(10, [7], max_tokens=6)
    batch = new_batch()
    add(batch, *others)
    frames = drain(batch, before=before, then=[ask(9, [1, POISON, 3], max_tokens=5), late])
    assert "cannot evaluate this" in failure_of(frames[9])
    for request in [*others, late]:
        assert tokens(frames[request.id]) == alone(new_batch, request)


def test_requests_that_fail_later_are_found_too(new_batch: Callable[..., TextBatch], model: FaultyModel) -> None:
    """The poison is sampled in the middle of an answer: what was said before stands, and the others do not notice."""
    others = [ask(n, [n, n + 1], max_tokens=12) for n in range(1, 4)]
    poisoned = ask(9, [4], max_tokens=12, logit_bias={POISON: 1.0}, temperature=1.0, seed=10)
    model.samples_poison = True
    try:
        batch = new_batch()
        add(batch, *others, poisoned)
        frames = drain(batch)
    finally:
        model.samples_poison = False
    assert "cannot evaluate this" in failure_of(frames[9])
    assert len(tokens(frames[9])) > 2
    for request in others:
        assert tokens(frames[request.id]) == alone(new_batch, request)


def test_a_batch_that_is_too_large_is_split(new_batch: Callable[..., TextBatch], model: FaultyModel) -> None:
    """Memory for two at once: of four, those that fit go on to the end, and the others are told why not."""
    model.sequences_max = 2
    try:
        batch = new_batch()
        asked = [ask(n, [n, n + 1], max_tokens=40) for n in range(1, 5)]
        add(batch, *asked)
        frames = drain(batch)
        add(batch, ask(5, [1, 2], max_tokens=4))
        assert len(tokens(drain(batch)[5])) == 4
    finally:
        model.sequences_max = 100
    ended = {number: frames[number][-1] for number in frames}
    assert [type(ended[number]) for number in (1, 2)] == [Finished, Finished]
    assert "out of memory" in failure_of(frames[3])
    for number in (1, 2):
        assert tokens(frames[number]) == alone(new_batch, asked[number - 1])


@pytest.mark.parametrize("breaks", ["logits", "sampler"])
def test_what_goes_wrong_with_one_rows_logits_fails_its_request_alone(
    new_batch: Callable[..., TextBatch], model: FaultyModel, breaks: str
) -> None:
    """NaN from the model, or a sampler that raises: the others of the batch get what they get alone."""
    others = [ask(n, [n, n + 1], max_tokens=8) for n in range(1, 4)]
    wrong = ask(9, [NAN_TOKEN], max_tokens=8) if breaks == "logits" else ask(9, [4], top_logprobs=99, max_tokens=8)
    batch = new_batch()
    before = model.calls
    add(batch, *others, wrong)
    frames = drain(batch)
    assert ("not numbers" if breaks == "logits" else "ValueError") in failure_of(frames[9])
    assert model.calls - before <= 12
    for request in others:
        assert tokens(frames[request.id]) == alone(new_batch, request)


def test_choices_share_the_evaluation_of_their_prompt(new_batch: Callable[..., TextBatch], model: FaultyModel) -> None:
    """Four choices of a long prompt: it is evaluated once, and each choice is what its own noise makes of it."""
    readable = {"max_tokens": 6, "temperature": 1.0, "seed": 5, "logit_bias": {UNREADABLE: -100.0}}
    asked = ask(1, [*range(2, 42)], n=4, **readable)
    batch = new_batch(prefill_chunk_tokens=8, prefill_sequences=2)
    before = model.tokens
    add(batch, asked)
    frames = drain(batch)[1]
    assert model.tokens - before <= 39 + 4 * 8
    choices = [tokens(frames, index) for index in range(4)]
    assert len(set(map(tuple, choices))) == 4
    assert choices[0] == alone(new_batch, ask(1, [*range(2, 42)], **readable))
    assert choices == [tokens(drain_alone(new_batch, asked), index) for index in range(4)]
    (end,) = [frame for frame in frames if isinstance(frame, Finished)]
    assert end.finish_reasons == (FinishReason.LENGTH,) * 4
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (40, 24)


def test_a_choice_that_ends_early_leaves_the_others(new_batch: Callable[..., TextBatch]) -> None:
    """A stop token ends the choice that samples it; the request ends with its last choice."""
    asked = {"max_tokens": 20, "n": 3, "temperature": 1.0, "seed": 5, "logit_bias": {UNREADABLE: -100.0}}
    free = drain_alone(new_batch, ask(1, [2, 3], **asked))
    stop = next(t for t in tokens(free, 1) if t not in tokens(free, 0) + tokens(free, 2))
    frames = drain_alone(new_batch, ask(1, [2, 3], **asked, stop_token_ids=(stop,)))
    end = frames[-1]
    assert isinstance(end, Finished)
    assert end.finish_reasons == (FinishReason.LENGTH, FinishReason.STOP, FinishReason.LENGTH)
    assert tokens(frames, 1) == tokens(free, 1)[: tokens(free, 1).index(stop) + 1]
    assert [tokens(frames, index) for index in (0, 2)] == [tokens(free, index) for index in (0, 2)]
    shown = "".join(frame.text for frame in frames if isinstance(frame, Delta) and frame.index == 1)
    assert len(shown) == len(tokens(frames, 1)) - 1


def test_a_request_with_choices_is_cancelled_whole(new_batch: Callable[..., TextBatch]) -> None:
    """Before its prompt is evaluated, while its choices wait for that, and while they generate."""
    for steps in range(6):
        batch = new_batch(prefill_chunk_tokens=4)
        add(batch, ask(1, [1] * 9, max_tokens=50, n=3), ask(2, [2], max_tokens=12))
        for _ in range(steps):
            batch.step()
        batch.cancel(1)
        rest = drain(batch)
        assert list(rest) == [2]


def test_log_probabilities_go_with_their_text(new_batch: Callable[..., TextBatch]) -> None:
    """One entry for each token that is shown, none for the end; asking for them changes no token."""
    effective = {"max_tokens": 12, "temperature": 1.0, "seed": 5, "logit_bias": {UNREADABLE: -100.0}}
    plain = alone(new_batch, ask(1, [1, 2, 3], **effective))
    whole = "".join(chr(ord("0") + token) for token in plain)
    asked = ask(1, [1, 2, 3], **effective, logprobs=True, top_logprobs=2, stop=[whole[4:7]])
    frames = drain_alone(new_batch, asked)
    told = [entry for frame in frames if isinstance(frame, Delta) for entry in frame.logprobs]
    shown = "".join(frame.text for frame in frames if isinstance(frame, Delta))
    assert b"".join(entry.chosen.token_bytes for entry in told).decode() == shown == whole[:4]
    assert tokens(frames) == plain[:7]
    for entry in told:
        assert 0 > entry.top[0].logprob >= entry.top[1].logprob
        assert entry.chosen.logprob <= entry.top[0].logprob
        assert len(entry.top) == 2
    for frame in frames:
        if isinstance(frame, Delta):
            assert len(frame.text) == len(frame.logprobs)


def test_a_token_that_cannot_be_read_fails_its_request_alone(new_batch: Callable[..., TextBatch]) -> None:
    """An error in one request's text is not the batch's."""
    unreadable = GeneratedRequest(ask(1, [1]), lambda: GeneratedText(Letters(), StopMatcher(())), received_s=0.0)
    with pytest.raises(KeyError):
        unreadable.push(0, UNREADABLE, None, batch_size=1)
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
        ([1], {"logit_bias": {VOCABULARY: 1.0}}, "invalid_value"),
        ([1], {"stop_token_ids": (-1,)}, "invalid_value"),
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
    assert end.finish_reasons == (FinishReason.STOP,)
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


def test_sixty_requests_at_once_do_not_mix(new_batch: Callable[..., TextBatch]) -> None:
    """Random prompts, lengths and arrivals: each gets what it gets alone, or differs where two tokens nearly tie."""
    chance = random.Random(7)
    readable: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "logit_bias": {UNREADABLE: -100.0}}
    asked = [
        ask(n, chance.choices(range(60), k=chance.randint(1, 30)), max_tokens=chance.randint(1, 12), **readable)
        for n in range(1, 61)
    ]
    batch = new_batch(prefill_chunk_tokens=8, decode_sequences=16)
    frames: dict[int, list[RunnerFrame]] = {}
    waiting = list(asked)
    while waiting or batch.active:
        for _ in range(chance.randint(0, 4)):
            if waiting:
                add(batch, waiting.pop())
        for frame in batch.step():
            frames.setdefault(getattr(frame, "id", 0), []).append(frame)
    for request in asked:
        by_itself = drain_alone(new_batch, request)
        mine, others = tokens(by_itself), tokens(frames[request.id])
        differs = [n for n, (one, other) in enumerate(zip(mine, others, strict=False)) if one != other]
        if differs:
            told = [entry for frame in by_itself if isinstance(frame, Delta) for entry in frame.logprobs]
            best, second = told[differs[0]].top
            assert best.logprob - second.logprob < TIE
        else:
            assert mine == others


def test_sequences_join_in_a_step_of_their_own(new_batch: Callable[..., TextBatch]) -> None:
    """Joining copies everybody's cache: in that step nothing else is evaluated, and nobody's tokens change."""
    streaming, arriving = ask(1, [1, 2, 3], max_tokens=30), ask(2, [5] * 12, max_tokens=4)
    expected = {1: alone(new_batch, streaming), 2: alone(new_batch, arriving)}
    batch = new_batch(prefill_chunk_tokens=8)
    add(batch, streaming)
    steps = [batch.step() for _ in range(4)]
    add(batch, arriving)
    while batch.active:
        steps.append(batch.step())
    told = [{frame.id for frame in frames if isinstance(frame, Delta)} for frames in steps]
    joined = next(number for number, ids in enumerate(told) if 2 in ids)
    assert told[joined] == {2}
    assert told[joined - 1] == {1}
    assert told[joined + 1] == {1}  # the first token of 2 came a step earlier than mlx-lm hands it out
    assert told[joined + 2] == {1, 2}
    deltas = [frame for frames in steps for frame in frames if isinstance(frame, Delta)]
    assert {n: [t for frame in deltas if frame.id == n for t in frame.token_ids] for n in expected} == expected
