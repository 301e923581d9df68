"""What clients get for a chat: the answer, its chunks, usage and log probabilities, as pydantic models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from manent.adapters.http.wire_responses import Answer


class PromptTokensDetails(Answer):
    """How the prompt was evaluated."""

    cached_tokens: int


class CompletionTokensDetails(Answer):
    """What the completion consists of."""

    reasoning_tokens: int


class CompletionUsage(Answer):
    """Exact token counts, from the tokenizer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class CalledFunctionAnswer(Answer):
    """The function that is to be called, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCallAnswer(Answer):
    """A call that the model asks for."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunctionAnswer


class AssistantMessage(Answer):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning: str | None = Field(default=None, description="Left out where the model did not reason.")
    reasoning_content: str | None = Field(default=None, description="The older name of reasoning: the same text.")
    tool_calls: list[ToolCallAnswer] | None = Field(default=None, description="Left out where there are none.")

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        absent = [name for name in ("reasoning", "reasoning_content", "tool_calls") if said[name] is None]
        return {name: value for name, value in said.items() if name not in absent}


class TopLogprob(Answer):
    """One of the most probable tokens at a place."""

    token: str
    logprob: float = Field(description="Natural logarithm of its probability; -9999.0 stands for minus infinity.")
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer. A character may span tokens: ``bytes`` is exact where ``token`` cannot be."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Answer):
    """Log probabilities as the model gave them, before biases, penalties and temperature."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(Answer):
    """A choice of a completion."""

    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(Answer):
    """A chat completion. ``session_id`` is null where the call was not part of a session."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Seconds since 1970, when the request was accepted.")
    model: str = Field(description="The id of the model that answered, also where an alias was asked for.")
    choices: list[Choice]
    usage: CompletionUsage
    system_fingerprint: str
    service_tier: Literal["default"] = "default"
    session_id: str | None = None


class CalledFunctionDelta(Answer):
    """A piece of a call: its name, then its arguments."""

    name: str | None = None
    arguments: str


class ToolCallDelta(Answer):
    """A piece of call ``index``; ``id``, ``type`` and the name come with its first piece only."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledFunctionDelta


class Delta(Answer):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(Answer):
    """What a chunk adds to a choice."""

    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class ChatCompletionChunk(Answer):
    """A chunk of a streamed completion; the fingerprint is known once the generation has ended."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str | None
    service_tier: Literal["default"]
    session_id: str | None = None
    usage: CompletionUsage | None = None
