"""What an embedding model is asked for and what it answers, and which kinds of models there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from manent.domain.errors import InvalidValue, WrongModelType

INPUTS_MAX = 2048
TOKENS_MAX = 300_000
"""Of all inputs of one request together; both bounds are OpenAI's."""


class ModelType(StrEnum):
    """What a model is for: the word of ``models.toml``."""

    LLM = "llm"
    VLM = "vlm"
    EMBEDDING = "embedding"


_SERVED_AT = {
    ModelType.LLM: "POST /v1/chat/completions",
    ModelType.VLM: "POST /v1/chat/completions",
    ModelType.EMBEDDING: "POST /v1/embeddings",
}

CHAT_TYPES = (ModelType.LLM, ModelType.VLM)

EmbeddingInput = str | tuple[int, ...]
"""A text, or the ids of its tokens, which are taken as they are: with the marks that the tokenizer puts around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Inputs for one model.

    Each has at most ``tokens_max`` tokens. ``dimensions`` keeps the first so many numbers of each vector, brought to
    length 1 again where the model's are: of use with models that were trained for it (arXiv 2205.13147).
    """

    model_id: str
    inputs: tuple[EmbeddingInput, ...]
    tokens_max: int
    dimensions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingResult:
    """A vector for each input, in their order, of little-endian 32-bit floats; and the tokens that the model saw."""

    vectors: tuple[bytes, ...]
    prompt_tokens: int


class EmbeddingEngine(Protocol):
    """Whatever turns texts into vectors."""

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        """A vector for each input. Cancelling it stops the evaluation at its next step.

        Raises:
            InvalidValue: an input is too long, empty, or holds tokens that the model does not know; or the model has
                fewer dimensions.
            ModelLoadError, EngineUnavailable, GenerationFailed: no runner can do it now.
        """
        ...


def check_type(model_id: str, found: ModelType, *wanted: ModelType) -> None:
    """Raise WrongModelType, with what the model can be used for, where it is of none of these types."""
    if found not in wanted:
        names = " or ".join(repr(one.value) for one in wanted)
        raise WrongModelType(
            f"model {model_id!r} is of type {found.value!r}, and this takes one of type {names}; "
            f"use it with {_SERVED_AT[found]}"
        )


def check_inputs(inputs: Sequence[EmbeddingInput]) -> None:
    """Raise InvalidValue for no inputs, too many, or an empty one."""
    if not 1 <= len(inputs) <= INPUTS_MAX:
        raise InvalidValue(f"input has {len(inputs)} items; send 1 to {INPUTS_MAX}", param="input")
    for number, item in enumerate(inputs):
        if not item:
            raise InvalidValue(f"input {number} is empty; every input needs a character or a token", param="input")
