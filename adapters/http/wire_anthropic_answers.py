"""What clients of Anthropic's API get, as pydantic models: for its description, and for lists of models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from manent.adapters.http.wire_responses import Answer


class AnthropicErrorDetails(Answer):
    """Manent's code of the error, and the parameter at fault where there is one."""

    error_code: str
    param: str | None


class AnthropicErrorDetail(Answer):
    """What went wrong, in Anthropic's words."""

    type: str
    message: str
    details: AnthropicErrorDetails


class AnthropicErrorAnswer(Answer):
    """Anthropic's error envelope."""

    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str


class TextBlockAnswer(Answer):
    """A piece of text."""

    type: Literal["text"]
    text: str
    citations: None


class ThinkingBlockAnswer(Answer):
    """What the model thought; ``signature`` names the message that it belongs to."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class DirectCaller(Answer):
    """It is the model that calls."""

    type: Literal["direct"]


class ToolUseBlockAnswer(Answer):
    """A call that the model asks for."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: DirectCaller
    toolset_name: None


class CacheCreation(Answer):
    """Tokens that were put in caches on purpose: none, since every prompt is."""

    ephemeral_1h_input_tokens: int
    ephemeral_5m_input_tokens: int


class OutputTokensDetails(Answer):
    """What the output consists of."""

    thinking_tokens: int


class MessageUsage(Answer):
    """Exact token counts; the prompt has ``input_tokens`` and ``cache_read_input_tokens`` together."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    server_tool_use: None
    cache_creation: CacheCreation
    inference_geo: None
    service_tier: Literal["standard"]
    speed: None


class AnthropicMessage(Answer):
    """The answer to a conversation; ``id`` is also that of the message in its session."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlockAnswer | ThinkingBlockAnswer | ToolUseBlockAnswer]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
    stop_sequence: str | None
    stop_details: None
    container: None
    diagnostics: None
    usage: MessageUsage
    session_id: str | None = Field(description="Manent's: the session that the message is part of.")


class AnthropicStreamEvent(BaseModel):
    """An event of a message's stream: its type says what else it has, as in Anthropic's API."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
        "error",
    ]


class MessageTokensCount(Answer):
    """How many tokens the model would be given."""

    input_tokens: int


class AnthropicModel(Answer):
    """A model of the registry, as Anthropic has models."""

    id: str
    type: Literal["model"] = "model"
    display_name: str
    created_at: str = Field(description="RFC 3339.")
    lifecycle: Literal["active"] = "active"
    deprecated_at: None = None
    retires_at: None = None
    line: None = None
    max_input_tokens: int = Field(description="The context window, which the answer shares.")
    max_tokens: int
    capabilities: None = None


class AnthropicModelList(Answer):
    """A page of models."""

    data: list[AnthropicModel]
    first_id: str | None
    last_id: str | None
    has_more: bool
