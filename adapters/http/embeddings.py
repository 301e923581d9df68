"""POST /v1/embeddings: from the wire to the use case, and its vectors back."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
from sanic import HTTPResponse

from manent.adapters.http.answers import JSON_TYPE, bytes_answer, place_headers
from manent.adapters.http.context import Exchange
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.parameter_table import honored_members
from manent.adapters.http.route import BODY_ERRORS, BODY_LIMITS, ENGINE_ERRORS
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_embeddings import EMBEDDING_PARAMETERS, EmbeddingsRequest
from manent.domain.embedding import EmbeddingInput
from manent.domain.limits import RateLimited
from manent.domain.usecases.create_embeddings import CreatedEmbeddings, EmbeddingCommand

FLOAT_BYTES = 4
LARGE_ANSWER_BYTES = 256 * 1024
EMBEDDING_ERRORS = (
    *BODY_ERRORS,
    *BODY_LIMITS,
    "model_not_found",
    "wrong_model_type",
    "context_length_exceeded",
    *ENGINE_ERRORS,
    "internal_error",
)


async def create_embeddings(exchange: Exchange) -> HTTPResponse:
    """A vector for each input. A client that disconnects has its handler cancelled, and the evaluation with it."""
    command, encoding = await read_body(exchange.request, lambda: _read(json_object(exchange.request), exchange))
    exchange.request.watch_connection()
    try:
        created = await exchange.services.embeddings.run(command)
    except RateLimited as refused:
        exchange.request.levels += refused.levels
        raise
    exchange.request.levels += created.levels
    # A few thousand vectors take as long to write down as many other requests together.
    large = sum(map(len, created.result.vectors)) > LARGE_ANSWER_BYTES
    body = await asyncio.to_thread(_written, created, encoding) if large else _written(created, encoding)
    return bytes_answer(body, JSON_TYPE, headers=place_headers(created.place))


def _read(body: Mapping[str, Any], exchange: Exchange) -> tuple[EmbeddingCommand, str]:
    asked = validated(EmbeddingsRequest, honored_members(body, EMBEDDING_PARAMETERS))
    command = EmbeddingCommand(
        principal=exchange.principal,
        address=exchange.request.origin.address,
        model=asked.model,
        inputs=_inputs(asked.input),
        dimensions=asked.dimensions,
        priority=exchange.priority(asked.priority),
    )
    return command, asked.encoding_format or "float"


def _inputs(given: str | list[str] | list[int] | list[list[int]]) -> tuple[EmbeddingInput, ...]:
    if isinstance(given, str):
        return (given,)
    texts = [item for item in given if isinstance(item, str)]
    token_lists = [tuple(item) for item in given if isinstance(item, list)]
    tokens = tuple(item for item in given if isinstance(item, int))
    return (*texts, *token_lists) or (tokens,)


def _written(created: CreatedEmbeddings, encoding: str) -> bytes:
    """The answer's bytes, an ``EmbeddingList``; plain, since it may have a million numbers."""
    write = _base64 if encoding == "base64" else _numbers
    tokens = created.result.prompt_tokens
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": write(vector)}
                for index, vector in enumerate(created.result.vectors)
            ],
            "model": created.place.model_id,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode("ascii")


def _numbers(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(vector) // FLOAT_BYTES}f", vector))
