"""Batches of inputs: fair, bounded, and a failure that stays with the request that caused it."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import mlx.core as mx

from manent.adapters.inference.embedding_batch import EmbeddingBatch, EmbeddingLimits
from manent.adapters.inference.embedding_frames import Embed, Embedded
from manent.adapters.inference.pooling import Pooling
from manent.adapters.inference.protocol import Failed, Progress, RunnerFrame

POISON = 666


class Model:
    """Vectors of an input's length and its first token; batches are kept, and one with poison in it fails."""

    def __init__(self) -> None:
        self.batches: list[list[Sequence[int]]] = []

    def __call__(self, inputs: Sequence[Sequence[int]]) -> mx.array:
        """Evaluate."""
        self.batches.append(list(inputs))
        if any(POISON in tokens for tokens in inputs):
            raise ValueError("poison")
        return mx.array([[float(len(tokens)), float(tokens[0])] for tokens in inputs])


def batch_of(model: Model, *, inputs: int = 4, tokens: int = 1000, progress_interval_s: float = 60.0) -> EmbeddingBatch:
    """A batch with these limits."""
    limits = EmbeddingLimits(inputs=inputs, tokens=tokens, progress_interval_s=progress_interval_s)
    return EmbeddingBatch(model, Pooling(normalizes=False), limits)


def asking(number: int, *inputs: Sequence[int]) -> Embed:
    """A request."""
    return Embed(id=number, inputs=tuple(map(tuple, inputs)), tokens_max=1000)


def run(batch: EmbeddingBatch) -> list[RunnerFrame]:
    """All frames until nothing waits."""
    frames: list[RunnerFrame] = []
    while batch.active:
        frames += batch.step()
    return frames


def test_vectors_come_in_the_order_of_the_inputs() -> None:
    """However they were sorted and batched to be evaluated."""
    model = Model()
    batch = batch_of(model, inputs=2)
    batch.add(asking(1, [5], [6, 6, 6], [7, 7]))
    (answer,) = run(batch)
    assert isinstance(answer, Embedded)
    assert [struct.unpack("<2f", vector) for vector in answer.vectors] == [(1, 5), (3, 6), (2, 7)]
    assert answer.prompt_tokens == 6
    assert [[len(tokens) for tokens in inputs] for inputs in model.batches] == [[3, 2], [1]]


def test_requests_take_turns() -> None:
    """One input of each at a time; a small request ends in the first batch although a large one came before it."""
    model = Model()
    batch = batch_of(model, inputs=4)
    batch.add(asking(1, *[[1]] * 10))
    batch.add(asking(2, [2], [2]))
    first = batch.step()
    assert [frame.id for frame in first if isinstance(frame, Embedded)] == [2]
    assert sorted(tokens[0] for tokens in model.batches[0]) == [1, 1, 2, 2]


def test_nobody_waits_for_ever_where_a_batch_holds_one_input() -> None:
    """Another request begins each time."""
    model = Model()
    batch = batch_of(model, inputs=1)
    for number in (1, 2, 3):
        batch.add(asking(number, *[[number]] * 3))
    run(batch)
    assert [inputs[0][0] for inputs in model.batches] == [1, 2, 3] * 3


def test_a_batch_is_bounded_with_its_padding() -> None:
    """The longest input times their number; one that is longer than the bound is evaluated alone."""
    model = Model()
    batch = batch_of(model, inputs=100, tokens=20)
    batch.add(asking(1, [1] * 30, *[[1] * 10] * 3, *[[1]] * 5))
    run(batch)
    for inputs in model.batches:
        assert len(inputs) == 1 or len(inputs) * max(map(len, inputs)) <= 20
    assert sum(map(len, model.batches)) == 9


def test_a_failure_stays_with_its_request() -> None:
    """Those that shared the batch are evaluated again without it."""
    model = Model()
    batch = batch_of(model, inputs=10)
    for number, token in ((1, 1), (2, POISON), (3, 3)):
        batch.add(asking(number, [token]))
    frames = {frame.id: frame for frame in run(batch) if isinstance(frame, Failed | Embedded)}
    assert {number: type(frame) for number, frame in frames.items()} == {1: Embedded, 2: Failed, 3: Embedded}
    assert "poison" in getattr(frames[2], "message", "")


def test_a_cancelled_request_is_evaluated_no_further() -> None:
    """Nor is one whose cancellation overtook it, while its texts became tokens."""
    model = Model()
    batch = batch_of(model, inputs=1)
    batch.add(asking(1, [1], [1], [1]))
    batch.step()
    batch.cancel(1)
    batch.cancel(2)
    batch.add(asking(2, [2]))
    assert (batch.active, len(model.batches)) == (0, 1)
    batch.add(asking(3, [3]))
    assert batch.active == 1


def test_whoever_waits_is_told_that_it_goes_on() -> None:
    """Else the server would take a long request for a runner that hangs."""
    batch = batch_of(Model(), inputs=1, progress_interval_s=0.0)
    batch.add(asking(1, [1], [1]))
    assert [frame.processed_tokens for frame in batch.step() if isinstance(frame, Progress)] == [1]
