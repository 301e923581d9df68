"""The frames of embeddings; see ``protocol`` for how frames travel."""

from __future__ import annotations

import msgspec

from manent.domain.embedding import EmbeddingInput


class Embed(msgspec.Struct, frozen=True, tag_field="type", tag="embed"):
    """Make a vector of each input; see ``EmbeddingRequest``. Cancelled like a generation."""

    id: int
    inputs: tuple[EmbeddingInput, ...]
    tokens_max: int
    dimensions: int | None = None


class Embedded(msgspec.Struct, frozen=True, tag_field="type", tag="embedded"):
    """Answer to Embed; see ``EmbeddingResult``."""

    id: int
    vectors: tuple[bytes, ...]
    prompt_tokens: int
