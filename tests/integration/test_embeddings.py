"""Embeddings of real runners: the published numbers, an independent implementation, and what is refused."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import struct
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from manent.adapters.inference.embedding_model import load_embedding_model
from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.model_folder import ModelFolderError, check_model_folder
from manent.adapters.inference.registry import RegisteredModel
from manent.domain.embedding import EmbeddingInput, EmbeddingRequest, ModelType
from manent.domain.errors import ContextLengthExceeded, DomainError, InvalidValue, ModelLoadError
from manent.domain.generation import ModelCard, RenderedPrompt
from tests.support.engines import RecordedEvents, engine_of, parameters, request, supervisor_settings, until, user
from tests.support.numpy_bert import NumpyBert, WordPiece
from tests.support.tiny_bert import make_tiny_bert
from tests.support.tiny_models import make_tiny_model

MODEL = "minilm"
WEATHER = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
# What sentence-transformers' documentation shows for these sentences and all-MiniLM-L6-v2.
PUBLISHED = {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411}
TEXTS = (
    *WEATHER,
    "a",
    "Naïve café, déjà vu: ÄÖÜ!",
    "東京は大きい。",
    "unbelievably antidisestablishmentarianism " * 10,
    "numbers 1,234.5 & signs — “quoted” (x*y)^2 🙂",
    "x" * 150,
)


def card(model_type: ModelType = ModelType.EMBEDDING, name: str = MODEL) -> ModelCard:
    """A card."""
    return ModelCard(model_id=name, context_length=256, created_at_s=0, type=model_type)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(embedding_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunnerEngine, None]:
    """A runner with the real model."""
    settings = supervisor_settings(tmp_path_factory.mktemp("digests"))
    async with engine_of([RegisteredModel(card=card(), path=embedding_model)], settings) as made:
        yield made


def asking(*inputs: EmbeddingInput, tokens_max: int = 256, dimensions: int | None = None) -> EmbeddingRequest:
    """A request."""
    return EmbeddingRequest(model_id=MODEL, inputs=inputs, tokens_max=tokens_max, dimensions=dimensions)


async def vectors(engine: RunnerEngine, asked: EmbeddingRequest) -> list[list[float]]:
    """The vectors as numbers."""
    result = await engine.embed(asked)
    return [list(struct.unpack(f"<{len(vector) // 4}f", vector)) for vector in result.vectors]


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """The cosine of the angle between two vectors."""
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_published_similarities_come_out(engine: RunnerEngine) -> None:
    """To the four digits that the authors of the model show, at length 1."""
    found = await vectors(engine, asking(*WEATHER))
    assert [len(vector) for vector in found] == [384] * 3
    assert [math.hypot(*vector) for vector in found] == pytest.approx([1.0] * 3, abs=1e-6)
    for (a, b), published in PUBLISHED.items():
        assert cosine(found[a], found[b]) == pytest.approx(published, abs=1e-4)


async def test_an_independent_implementation_agrees(engine: RunnerEngine, embedding_model: Path) -> None:
    """Tokens and vectors of texts in several scripts, padded among others, and one by one from the paper in NumPy."""
    bert, tokenizer = NumpyBert(embedding_model), WordPiece(embedding_model / "vocab.txt")
    tokens = [tokenizer.tokens(text) for text in TEXTS]
    by_text = await vectors(engine, asking(*TEXTS))
    for found, expected in zip(by_text, tokens, strict=True):
        assert cosine(found, list(bert.states(expected).mean(axis=0))) > 1 - 1e-5
    assert await vectors(engine, asking(*map(tuple, tokens))) == by_text
    assert (await engine.embed(asking(TEXTS[0]))).prompt_tokens == len(tokens[0])


async def test_fewer_dimensions_are_the_first_ones_at_length_one(engine: RunnerEngine) -> None:
    """As Matryoshka models are meant to be used."""
    (whole,), (cut,) = await vectors(engine, asking("hello")), await vectors(engine, asking("hello", dimensions=64))
    assert len(cut) == 64
    assert math.hypot(*cut) == pytest.approx(1.0, abs=1e-6)
    assert cosine(cut, whole[:64]) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        (asking("ok", "word " * 300), ContextLengthExceeded, "input 1 has 302 tokens, and the model takes at most 256"),
        (asking("word " * 10, tokens_max=11), ContextLengthExceeded, "has 12 tokens, and the model takes at most 11"),
        (asking((101, 90_000, 102)), InvalidValue, "token 90000, and the model's vocabulary ends at 30521"),
        (asking("ok", dimensions=385), InvalidValue, "dimensions is 385, but the model's vectors have 384"),
        (asking(*["word " * 200] * 1500), InvalidValue, "303000 tokens together, at most 300000"),
    ],
)
async def test_what_the_model_cannot_take_is_refused(
    engine: RunnerEngine, asked: EmbeddingRequest, error: type[DomainError], says: str
) -> None:
    """Nothing is cut off in silence; the message names the input and the bound."""
    with pytest.raises(error, match=says) as caught:
        await engine.embed(asked)
    assert caught.value.param == ("input" if asked.dimensions is None else "dimensions")


async def test_a_small_request_does_not_wait_for_a_large_one(engine: RunnerEngine) -> None:
    """Inputs of both share batches; and a request that nobody waits for stops at the next one."""
    large = asyncio.create_task(engine.embed(asking(*["some more words " * 20] * 2000)))
    await asyncio.sleep(0.1)
    await engine.embed(asking("hello"))
    assert not large.done()
    large.cancel()
    runner = engine.supervisor(MODEL).runner
    assert runner is not None
    async with asyncio.timeout(20):
        while (await runner.ping()).active:  # noqa: ASYNC110 (a runner sends no event)
            await asyncio.sleep(0.05)


async def test_a_chat_is_answered_by_an_embedding_runner_too(engine: RunnerEngine) -> None:
    """Should one ever get there: with a refusal, and not by a silence that ends in a kill."""
    with pytest.raises(InvalidValue, match="makes embeddings"):
        await engine.render(MODEL, [user("Hi")])
    rendered = request(RenderedPrompt(token_ids=(1, 2)), parameters(max_tokens=1), model_id=MODEL)
    with pytest.raises(InvalidValue, match="makes embeddings"):
        await anext(engine.generate(rendered))


async def test_a_text_runner_answers_embeddings_the_same_way(starter_model: Path, tmp_path: Path) -> None:
    """The other way round."""
    folder = make_tiny_model(tmp_path / "tiny", starter=starter_model, seed=1)
    async with engine_of(
        [RegisteredModel(card=card(ModelType.LLM), path=folder)], supervisor_settings(tmp_path)
    ) as made:
        with pytest.raises(InvalidValue, match="makes no embeddings"):
            await made.embed(asking("hello"))


async def test_a_killed_runner_is_replaced(embedding_model: Path, tmp_path: Path) -> None:
    """The same supervisor as for chats: the crash is an event, the next request loads it again."""
    events = RecordedEvents()
    models = [RegisteredModel(card=card(), path=embedding_model)]
    async with engine_of(models, supervisor_settings(tmp_path), events=events) as made:
        before = await made.embed(asking("hello"))
        supervisor = made.supervisor(MODEL)
        assert supervisor.runner is not None
        os.kill(supervisor.runner.pid, signal.SIGKILL)
        await until(lambda: "RunnerCrashed" in events.names)
        assert await made.embed(asking("hello")) == before
    assert events.names == ["ModelLoaded", "RunnerCrashed", "ModelLoaded", "ModelUnloaded"]


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize(
    ("modes", "normalizes"),
    [((), True), (("mean_tokens",), False), (("cls_token",), True), (("max_tokens", "mean_sqrt_len_tokens"), True)],
)
async def test_every_architecture_and_pooling(
    tmp_path: Path, architecture: str, modes: tuple[str, ...], *, normalizes: bool
) -> None:
    """Random weights, short and long inputs in one batch, against the independent implementation."""
    folder = make_tiny_bert(
        tmp_path / "tiny", modes=modes, normalizes=normalizes, model_type=architecture, pad_token_id=1
    )
    model = load_embedding_model(folder, check_model_folder(folder), digest_folder=tmp_path)
    inputs = [[1, 5, 6, 7, 2], [1, 2], [1, *[9] * 30, 2], [63]]
    reference = NumpyBert(folder)
    rows: Any = model.pooling.finished(model.vectors(inputs)).tolist()
    for row, tokens in zip(rows, inputs, strict=True):
        states = reference.states(tokens)
        pooled = {
            "cls_token": states[0],
            "max_tokens": states.max(axis=0),
            "mean_tokens": states.mean(axis=0),
            "mean_sqrt_len_tokens": states.sum(axis=0) / math.sqrt(len(tokens)),
        }
        expected = np.concatenate([pooled[mode] for mode in modes or ("mean_tokens",)])
        if normalizes:
            expected = expected / np.linalg.norm(expected)
        assert row == pytest.approx(list(expected), abs=1e-4)


@pytest.mark.parametrize(
    ("config", "modes", "says"),
    [
        ({"model_type": "electra"}, (), "known here .bert, roberta, xlm-roberta"),
        ({"hidden_act": "swish"}, (), "hidden_act"),
        ({"num_attention_heads": 5}, (), "does not divide by 5 heads"),
        ({"position_embedding_type": "relative_key"}, (), "position_embedding_type"),
        ({}, ("lasttoken",), "asks for pooling that is not known here: pooling_mode_lasttoken"),
    ],
)
async def test_models_that_cannot_be_evaluated_say_why(
    tmp_path: Path, config: dict[str, object], modes: tuple[str, ...], says: str
) -> None:
    """Before anything is evaluated wrongly."""
    folder = make_tiny_bert(tmp_path / "tiny", modes=modes)
    with pytest.raises(ModelFolderError, match=says):
        load_embedding_model(folder, check_model_folder(folder) | config, digest_folder=tmp_path)


async def test_a_chat_model_that_is_said_to_make_embeddings_is_not_loaded(starter_model: Path, tmp_path: Path) -> None:
    """The reason names what is known."""
    folder = make_tiny_model(tmp_path / "tiny", starter=starter_model, seed=1)
    async with engine_of([RegisteredModel(card=card(), path=folder)], supervisor_settings(tmp_path)) as made:
        with pytest.raises(ModelLoadError, match="is not one of an embedding model"):
            await made.embed(asking("hello"))
