"""POST /v1/embeddings: OpenAI's shapes through OpenAI's client, and what is refused."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from manent.adapters.http.wire_embeddings import EmbeddingList
from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from manent.domain.embedding import ModelType
from manent.domain.generation import ModelCard
from tests.support.http import USER, running_server

CARD = ModelCard(model_id="vectors", context_length=20, created_at_s=0, aliases=("embed",), type=ModelType.EMBEDDING)


def engine() -> ScriptedEngine:
    """An engine with a model of each type."""
    return ScriptedEngine(cards=(SCRIPTED_CARD, CARD))


@pytest.mark.parametrize(
    ("given", "count", "tokens"),
    [
        ("one two three", 1, 3),
        (["one two", "three"], 2, 3),
        ([1, 2, 3, 4], 1, 4),
        ([[1, 2], [3]], 2, 3),
    ],
)
@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_every_kind_of_input(given: Any, count: int, tokens: int, prefix: str) -> None:
    """A vector for each, in order, with its index and exact usage; the model is named by its id."""
    async with running_server(engine=engine()) as running:
        answer = await running.http.post(f"{prefix}/embeddings", json={"model": "embed", "input": given})
        assert answer.status_code == 200
        parsed = EmbeddingList.model_validate_json(answer.content, strict=True)
        assert [item.index for item in parsed.data] == list(range(count))
        assert (parsed.model, parsed.usage.prompt_tokens, parsed.usage.total_tokens) == ("vectors", tokens, tokens)
        assert answer.headers["x-queue-position"] == "0"


async def test_base64_holds_the_same_numbers() -> None:
    """Little-endian 32-bit floats, bit for bit those of the other encoding."""
    async with running_server(engine=engine()) as running:
        both = [
            await running.http.post(
                "/v1/embeddings", json={"model": "embed", "input": "a", "encoding_format": encoding}
            )
            for encoding in ("float", "base64")
        ]
        numbers, text = (answer.json()["data"][0]["embedding"] for answer in both)
        assert list(struct.unpack("<8f", base64.b64decode(text))) == numbers


async def test_the_official_client_reads_them() -> None:
    """It asks for base64 unless it is told otherwise, and gives numbers either way."""
    async with running_server(engine=engine()) as running, running.openai() as client:
        made = await client.embeddings.create(model="embed", input=["a", "b"], dimensions=4, user="ann")
        told = await client.embeddings.create(model="embed", input=["a", "b"], dimensions=4, encoding_format="float")
        assert [item.embedding for item in made.data] == [item.embedding for item in told.data]
        assert [len(item.embedding) for item in made.data] == [4, 4]


@pytest.mark.parametrize(
    ("members", "code", "param", "says"),
    [
        ({}, "missing_required_parameter", "input", ""),
        ({"input": ""}, "invalid_value", "input", ""),
        ({"input": []}, "invalid_value", "input", "empty"),
        ({"input": ["a", ""]}, "invalid_value", "input[1]", ""),
        ({"input": [[1], []]}, "invalid_value", "input[1]", "empty"),
        ({"input": ["a", 1]}, "invalid_type", "input[1]", "string"),
        ({"input": [1, "a"]}, "invalid_type", "input[1]", ""),
        ({"input": [-1]}, "invalid_value", "input[0]", ""),
        ({"input": [True]}, "invalid_type", "input[0]", ""),
        ({"input": {"a": 1}}, "invalid_type", "input", ""),
        ({"input": None}, "invalid_type", "input", ""),
        ({"input": ["a"] * 2049}, "invalid_value", "input", "2048"),
        ({"input": "a", "encoding_format": "int8"}, "invalid_value", "encoding_format", "base64"),
        ({"input": "a", "dimensions": 0}, "invalid_value", "dimensions", ""),
        ({"input": "a", "dimensions": 9}, "invalid_value", "dimensions", "8"),
        ({"input": "w " * 21}, "context_length_exceeded", "input", "at most 20"),
        ({"input": "a", "temperature": 1}, "unknown_parameter", "temperature", ""),
        ({"input": "a", "model": "embbed"}, "model_not_found", "model", ""),
    ],
)
async def test_mistakes_are_named(members: dict[str, Any], code: str, param: str, says: str) -> None:
    """The parameter, and what would be right."""
    async with running_server(engine=engine()) as running:
        answer = await running.http.post("/v1/embeddings", json={"model": "embed", **members})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (
            404 if code == "model_not_found" else 400,
            code,
            param,
        )
        assert says in error["message"]


async def test_each_model_says_what_it_is_for() -> None:
    """In the list; and a request that takes another one is sent to the right endpoint, before anything is recorded."""
    async with running_server(engine=engine()) as running:
        listed = (await running.http.get("/v1/models")).json()["data"]
        assert {model["id"]: model["type"] for model in listed} == {"scripted": "llm", "vectors": "embedding"}
        chat = await running.http.post("/v1/chat/completions", json={"model": "embed", "messages": [USER]})
        streamed = await running.http.post(
            "/v1/chat/completions", json={"model": "embed", "messages": [USER], "stream": True, "session_id": "s"}
        )
        embedding = await running.http.post("/v1/embeddings", json={"model": "default", "input": "a"})
        for answer, endpoint in ((chat, "embeddings"), (streamed, "embeddings"), (embedding, "chat/completions")):
            error = json.loads(answer.content)["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "wrong_model_type", "model")
            assert f"POST /v1/{endpoint}" in error["message"]
        assert await running.log() == []


async def test_a_session_is_not_rerun_on_an_embedding_model() -> None:
    """It is refused before a fork is made."""
    async with running_server(engine=engine()) as running:
        await running.chat(session_id="s")
        before = len(await running.log())
        answer = await running.http.post("/v1/sessions/s/rerun", json={"from_version": 1, "model": "vectors"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_model_type")
        assert len(await running.log()) == before
