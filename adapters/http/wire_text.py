"""Text completions on the wire (OpenAI's legacy ``/v1/completions``): the request, its parameters, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from manent.adapters.http.parameter_table import Parameter, Treatment
from manent.adapters.http.parameters import CHAT_PARAMETERS
from manent.adapters.http.wire_completions import CompletionUsage
from manent.adapters.http.wire_requests import SamplingRequest, TokenId, texts_or_tokens
from manent.adapters.http.wire_responses import Answer

PROMPTS_MAX = 32
TEXT_LOGPROBS_MAX = 5
TEXT_MAX_TOKENS = 16
"""OpenAI's default of max_tokens here, which is not that of chats."""

_OTHERWISE = ("max_tokens", "logprobs", "metadata")
"""What both endpoints have, and do not mean the same by."""

TEXT_PARAMETERS: Sequence[Parameter] = (
    Parameter(
        name="prompt",
        treatment=Treatment.HONORED,
        says=f"a string, up to {PROMPTS_MAX} strings, tokens of one prompt, or of up to {PROMPTS_MAX}; continued as it "
        "stands, without a chat template",
    ),
    *(row for row in CHAT_PARAMETERS if row.name in SamplingRequest.model_fields and row.name not in _OTHERWISE),
    *(
        Parameter(name=name, treatment=Treatment.HONORED, says=says)
        for name, says in (
            ("max_tokens", f"at least 1, of each choice; {TEXT_MAX_TOKENS} where it is left out"),
            ("echo", "true has each choice begin with its prompt; not together with logprobs"),
            ("logprobs", "0 to 5 most probable tokens beside each token, in the shape of this older endpoint"),
            ("metadata", "up to 16 pairs, recorded with the completions"),
        )
    ),
    Parameter(
        name="suffix", treatment=Treatment.REFUSED, says="no model of the registry fills a gap in a text", neutral=("",)
    ),
    Parameter(name="best_of", treatment=Treatment.REFUSED, says="as many answers are made as n asks for", neutral=(1,)),
)


Tokens = Annotated[list[TokenId], Field(min_length=1)]
Prompt = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[list[str], Field(min_length=1, max_length=PROMPTS_MAX), Tag("<strings>")]
    | Annotated[Tokens, Tag("<tokens>")]
    | Annotated[list[Tokens], Field(min_length=1, max_length=PROMPTS_MAX), Tag("<token lists>")],
    Discriminator(texts_or_tokens),
]


class TextRequest(SamplingRequest):
    """A request for text completions: ``n`` choices of each prompt."""

    prompt: Prompt
    logprobs: Annotated[int, Field(ge=0, le=TEXT_LOGPROBS_MAX)] | None = None
    echo: bool | None = None


class TextLogprobs(Answer):
    """Log probabilities, one item a token in each list; a token that is no text on its own is ``bytes:\\\\xe2…``."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int] = Field(description="Where each token begins in the choice's text, in characters.")


class TextChoice(Answer):
    """A choice: number ``n * prompt + choice``, both from 0."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(Answer):
    """Text completions. Each prompt is a completion in the log; ``id`` is that of the first."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage
    system_fingerprint: str


class TextChunkChoice(Answer):
    """What a chunk adds to a choice."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class TextCompletionChunk(Answer):
    """A chunk of streamed text completions; the fingerprint is known once a generation has ended."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChunkChoice]
    system_fingerprint: str | None
    usage: CompletionUsage | None = None
