"""Embeddings on the wire: the request, its parameters, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from manent.adapters.http.parameter_table import Parameter, Treatment
from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_requests import Label, ModelName, TokenId, texts_or_tokens
from manent.adapters.http.wire_responses import Answer
from manent.domain.embedding import INPUTS_MAX

DIMENSIONS_MAX = 65_536

EMBEDDING_PARAMETERS: Sequence[Parameter] = tuple(
    Parameter(name=name, treatment=treatment, says=says)
    for name, treatment, says in (
        ("model", Treatment.HONORED, "id or alias of a model whose type is embedding"),
        (
            "input",
            Treatment.HONORED,
            f"a string, up to {INPUTS_MAX} strings, tokens of one text, or of up to {INPUTS_MAX}, taken as they are",
        ),
        ("encoding_format", Treatment.HONORED, "'float' (default), or 'base64': little-endian 32-bit floats"),
        (
            "dimensions",
            Treatment.HONORED,
            "the first so many numbers of each vector, at length 1 again: for models that were trained for it",
        ),
        ("priority", Treatment.HONORED, "Manent's: 'interactive' (default), or 'batch', which waits for the others"),
        ("user", Treatment.ACCEPTED, "nothing is recorded of embeddings"),
    )
)


Text = Annotated[str, Field(min_length=1)]
Tokens = Annotated[list[TokenId], Field(min_length=1)]
Input = Annotated[
    Annotated[Text, Tag("<string>")]
    | Annotated[list[Text], Field(min_length=1, max_length=INPUTS_MAX), Tag("<strings>")]
    | Annotated[Tokens, Tag("<tokens>")]
    | Annotated[list[Tokens], Field(max_length=INPUTS_MAX), Tag("<token lists>")],
    Discriminator(texts_or_tokens),
]


class EmbeddingsRequest(Wire):
    """A request for embeddings."""

    model: ModelName
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=DIMENSIONS_MAX)] | None = None
    priority: Literal["interactive", "batch"] | None = None
    user: Label | None = None


class Embedding(Answer):
    """The vector of one input."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(description="Which input it belongs to.")
    embedding: list[float] | str = Field(description="Numbers or, where it was asked for, base64 of 32-bit floats.")


class EmbeddingUsage(Answer):
    """Exact token counts, with the marks that the tokenizer puts around a text."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Answer):
    """The vectors of all inputs, in their order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
