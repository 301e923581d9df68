"""Embeddings that are made up: see ``scripted``."""

from __future__ import annotations

import math
import random
import struct

from manent.domain.embedding import EmbeddingInput, EmbeddingRequest, EmbeddingResult
from manent.domain.errors import ContextLengthExceeded, InvalidValue

DIMENSIONS = 8


def scripted_embeddings(request: EmbeddingRequest) -> EmbeddingResult:
    """A vector of length 1 for each input, drawn from a generator that the input seeds."""
    dimensions = request.dimensions or DIMENSIONS
    if dimensions > DIMENSIONS:
        raise InvalidValue(f"dimensions is {dimensions}, but the vectors have {DIMENSIONS}", param="dimensions")
    counts = [_token_count(item) for item in request.inputs]
    if max(counts) > request.tokens_max:
        raise ContextLengthExceeded(f"an input has {max(counts)} tokens, at most {request.tokens_max}", param="input")
    return EmbeddingResult(
        vectors=tuple(_vector(item, dimensions) for item in request.inputs), prompt_tokens=sum(counts)
    )


def _token_count(item: EmbeddingInput) -> int:
    return len(item.split()) if isinstance(item, str) else len(item)


def _vector(item: EmbeddingInput, dimensions: int) -> bytes:
    source = random.Random(repr(item))  # noqa: S311 (no secret: a stand-in for a model)
    numbers = [source.gauss() for _ in range(DIMENSIONS)][:dimensions]
    length = math.hypot(*numbers)
    return struct.pack(f"<{dimensions}f", *(number / length for number in numbers))
