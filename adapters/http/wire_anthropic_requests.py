"""What clients of Anthropic's Messages API send, as pydantic models.

Clients send back the blocks that they got, and newer ones with members of newer APIs: those of blocks and tools, and
only those, are passed over. What decides the meaning is checked as strictly as everything else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_requests import (
    INT64_MAX,
    INT64_MIN,
    MAX_TOKENS_MAX,
    NO_EFFECT,
    TIMEOUT_S_MAX,
    Label,
    ModelName,
    SessionId,
    StopText,
)
from manent.adapters.http.wire_response_items import Lenient, ToolName
from manent.adapters.http.wire_tools import TOOLS_MAX, CallId

STOP_SEQUENCES_MAX = 64
RESULT_BLOCKS_MAX = 1000
THINKING_BUDGET_MIN = 1024
DESCRIPTION_CHARS_MAX = 64 * 1024

BLOCK_TYPES = ("text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking")
"""Kinds of content blocks; a tuple, since a client may send what no set can hold."""
SOURCE_TYPES = ("base64", "url")
CLIENT_TOOL_TYPES = (None, "custom")


class MessageTextBlock(Lenient):
    """A piece of text."""

    type: Literal["text"]
    text: str


class Base64Source(Lenient):
    """An image's file."""

    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: Annotated[str, Field(min_length=1)]


class UrlSource(Lenient):
    """An image at an address, where the server's operator allows that; or a data URL."""

    type: Literal["url"]
    url: Annotated[str, Field(min_length=1)]


def _kind(value: Any) -> Any:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


def _source_kind(value: Any) -> str:
    return "<url>" if _kind(value) == "url" else "<base64>"


class MessageImageBlock(Lenient):
    """An image."""

    type: Literal["image"]
    source: Annotated[
        Annotated[Base64Source, Tag("<base64>")] | Annotated[UrlSource, Tag("<url>")], Discriminator(_source_kind)
    ]


class ToolUseBlock(Lenient):
    """A call that the assistant asked for."""

    type: Literal["tool_use"]
    id: CallId
    name: ToolName
    input: dict[str, Any]


def _tag(value: Any) -> str:
    kind = _kind(value)
    return f"<{kind}>" if kind in BLOCK_TYPES else "<text>"


def _content_kind(value: Any) -> str | None:
    if value is None:
        return "<null>"
    if isinstance(value, str):
        return "<string>"
    return "<blocks>" if isinstance(value, list) else None


def _result_tag(value: Any) -> str:
    return "<image>" if _kind(value) == "image" else "<text>"


ResultBlock = Annotated[
    Annotated[MessageTextBlock, Tag("<text>")] | Annotated[MessageImageBlock, Tag("<image>")],
    Discriminator(_result_tag),
]


class ToolResultBlock(Lenient):
    """What a tool answered to a call; images in it are refused."""

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: Annotated[
        Annotated[str, Tag("<string>")]
        | Annotated[list[ResultBlock], Field(max_length=RESULT_BLOCKS_MAX), Tag("<blocks>")]
        | Annotated[None, Tag("<null>")],
        Discriminator(_content_kind),
    ] = None
    is_error: bool | None = None


class ThinkingBlock(Lenient):
    """What the assistant thought; its signature is not looked at."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Lenient):
    """Thinking that only Anthropic can read: it is left out."""

    type: Literal["redacted_thinking"]
    data: str


Block = Annotated[
    Annotated[MessageTextBlock, Tag("<text>")]
    | Annotated[MessageImageBlock, Tag("<image>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[RedactedThinkingBlock, Tag("<redacted_thinking>")],
    Discriminator(_tag),
]
Blocks = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[Block], Tag("<blocks>")], Discriminator(_content_kind)
]
System = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[list[MessageTextBlock], Tag("<blocks>")]
    | Annotated[None, Tag("<null>")],
    Discriminator(_content_kind),
]


class InputMessage(Wire):
    """A turn of the conversation. Several of one role in a row are one turn."""

    role: Literal["user", "assistant", "system"]
    content: Blocks


class ClientTool(Lenient):
    """A tool that the client runs; ``input_schema`` is a JSON schema of its input."""

    type: Literal["custom"] | None = None
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    description: Annotated[str, Field(max_length=DESCRIPTION_CHARS_MAX)] | None = None
    input_schema: dict[str, Any]
    strict: bool | None = Field(default=None, description="Have the input enforced, whatever tool_choice is.")


class AnthropicTool(Lenient):
    """A tool of Anthropic's own, which Manent does not have: not shown to the model."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(max_length=128)] | None = None


def _tool_tag(value: Any) -> str:
    return "<client>" if _kind(value) in CLIENT_TOOL_TYPES else "<anthropic>"


MessageTool = Annotated[
    Annotated[ClientTool, Tag("<client>")] | Annotated[AnthropicTool, Tag("<anthropic>")], Discriminator(_tool_tag)
]


class MessageToolChoice(Wire):
    """Whether tools are called: as the model likes, at least one, the one that is named, or none."""

    type: Literal["auto", "any", "tool", "none"]
    name: Annotated[str, Field(max_length=128)] | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Wire):
    """Whether the model thinks first, and whether that is shown; ``between_tools`` and ``adaptive`` leave it to it."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=THINKING_BUDGET_MIN, le=MAX_TOKENS_MAX)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class JsonOutputFormat(Wire):
    """A JSON schema that the answer's text keeps to."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Wire):
    """What is asked of the answer: how much the model tries, and the format of its text."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonOutputFormat | None = None


class MessageMetadata(Wire):
    """Who the client asks for."""

    user_id: Label | None = None


class TokenCountRequest(Wire):
    """What a message begins with: the same for asking for one and for counting its tokens."""

    model: ModelName
    messages: Annotated[list[InputMessage], Field(min_length=1)]
    system: System = None
    tools: Annotated[list[MessageTool], Field(max_length=TOOLS_MAX)] | None = None
    tool_choice: MessageToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: JsonOutputFormat | None = None
    cache_control: Any = Field(default=None, description=NO_EFFECT)
    context_management: Any = Field(default=None, description=NO_EFFECT)
    speed: Any = Field(default=None, description=NO_EFFECT)


class MessageRequest(TokenCountRequest):
    """A request for a message."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_MAX)]
    stop_sequences: Annotated[list[StopText], Field(max_length=STOP_SEQUENCES_MAX)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    stream: bool | None = None
    metadata: MessageMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    inference_geo: Label | None = None
    diagnostics: Any = Field(default=None, description=NO_EFFECT)
    session_id: SessionId | None = None
    session_mode: Literal["auto", "append", "strict"] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    seed: Annotated[int, Field(ge=INT64_MIN, le=INT64_MAX)] | None = None
    priority: Literal["interactive", "batch"] | None = None
    deterministic: bool | None = None
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] | None = None
