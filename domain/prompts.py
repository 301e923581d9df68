"""Prompts beside the rendered one: what is continued as it stands, and what a rendered prompt says in words."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.errors import InvalidValue
from manent.domain.generation import Provenance, RenderedPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPrompt:
    """A rendered prompt with its text, and what rendered it."""

    text: str
    rendered: RenderedPrompt
    made_by: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPrompt:
    """What a model is to continue as it stands, without a chat template: a text, or the tokens themselves.

    ``token_ids`` is None where the text is to be tokenized; with both, the text is what the tokens say.
    """

    text: str | None = None
    token_ids: tuple[int, ...] | None = None


def check_vocabulary(prompt: TextPrompt, vocabulary_size: int) -> None:
    """Raise InvalidValue where ``prompt`` names a token that the model does not have."""
    for token_id in prompt.token_ids or ():
        if not 0 <= token_id < vocabulary_size:
            raise InvalidValue(
                f"prompt has token {token_id}; this model's token ids are 0 to {vocabulary_size - 1}", param="prompt"
            )
