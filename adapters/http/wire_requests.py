"""What clients send, as pydantic models: strict types, closed sets, bounds. Refused parameters never get here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_tools import (
    TOOL_CALLS_MAX,
    TOOLS_MAX,
    CallId,
    FunctionCall,
    FunctionTool,
    ResponseFormat,
    StructuredOutputs,
    ToolChoiceParameter,
)
from manent.domain.session_limits import (
    METADATA_KEY_CHARS_MAX,
    METADATA_PAIRS_MAX,
    METADATA_VALUE_CHARS_MAX,
    SESSION_ID,
    TTL_S_MAX,
)

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MAX_TOKENS_MAX = 2**31 - 1
CHOICES_MAX = 8
TOP_LOGPROBS_MAX = 20
LOGIT_BIAS_MAX = 1024
STOP_TOKEN_IDS_MAX = 64
TIMEOUT_S_MAX = 24 * 3600

NO_EFFECT = "Accepted without effect."

# Tags of a union stand in pydantic's error locations; the angle brackets tell them from names of parameters.
TAG_OPEN = "<"


def _content_kind(value: Any) -> str | None:
    if value is None:
        return "<null>"
    if isinstance(value, str):
        return "<string>"
    return "<parts>" if isinstance(value, list) else None


def _stop_kind(value: Any) -> str | None:
    if value is None:
        return "<null>"
    if isinstance(value, str):
        return "<string>"
    return "<strings>" if isinstance(value, list) else None


def texts_or_tokens(value: Any) -> str | None:
    """The tag of a text, texts, tokens or lists of them, by the first item; pydantic checks the others."""
    if isinstance(value, str):
        return "<string>"
    if not isinstance(value, list):
        return None
    first = value[0] if value else ""
    return "<strings>" if isinstance(first, str) else "<token lists>" if isinstance(first, list) else "<tokens>"


# A session's rules are the domain's; the schema repeats them for readers and generators of clients.
SessionId = Annotated[str, Field(max_length=1024, json_schema_extra={"pattern": f"^{SESSION_ID.pattern}$"})]
Metadata = Annotated[
    dict[str, str],
    Field(
        json_schema_extra={
            "maxProperties": METADATA_PAIRS_MAX,
            "propertyNames": {"maxLength": METADATA_KEY_CHARS_MAX},
            "additionalProperties": {"type": "string", "maxLength": METADATA_VALUE_CHARS_MAX},
        }
    ),
]
ModelName = Annotated[str, Field(min_length=1, max_length=256, examples=["default"])]
Label = Annotated[str, Field(max_length=512)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
StopText = Annotated[str, Field(min_length=1, max_length=1000)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
TokenIdText = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class TextContentPart(Wire):
    """A piece of text."""

    type: Literal["text"]
    text: str
    cache_control: Any = Field(default=None, description=NO_EFFECT)


class ImageUrl(Wire):
    """An image: a data URL, or an address where the server's operator allows that."""

    url: Annotated[str, Field(min_length=1)]
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImageContentPart(Wire):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl
    cache_control: Any = Field(default=None, description=NO_EFFECT)


def _part_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<image>" if kind == "image_url" else "<text>"


ContentPart = Annotated[
    Annotated[TextContentPart, Tag("<text>")] | Annotated[ImageContentPart, Tag("<image>")],
    Discriminator(_part_kind),
]
Content = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[ContentPart], Field(min_length=1), Tag("<parts>")],
    Discriminator(_content_kind),
]
NullableContent = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[list[ContentPart], Field(min_length=1), Tag("<parts>")]
    | Annotated[None, Tag("<null>")],
    Discriminator(_content_kind),
]
Stop = Annotated[
    Annotated[StopText, Tag("<string>")]
    | Annotated[list[StopText], Field(max_length=4), Tag("<strings>")]
    | Annotated[None, Tag("<null>")],
    Discriminator(_stop_kind),
]


class ChatMessage(Wire):
    """A message of the conversation; ``developer`` is ``system`` to the model."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: NullableContent = None
    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s<|\\/>]+$")] | None = None
    tool_calls: Annotated[list[FunctionCall], Field(max_length=TOOL_CALLS_MAX)] | None = Field(default_factory=list)
    tool_call_id: CallId | None = None
    reasoning_content: str | None = None
    reasoning: str | None = Field(default=None, description="Another name of reasoning_content.")
    parsed: Any = Field(default=None, description=NO_EFFECT)
    provider_specific_fields: Any = Field(default=None, description=NO_EFFECT)
    reasoning_details: Any = Field(default=None, description=NO_EFFECT)


class NamedConversation(Wire):
    """A conversation, by its id."""

    id: SessionId


def _conversation_kind(value: Any) -> str | None:
    if value is None:
        return "<null>"
    return "<string>" if isinstance(value, str) else "<object>"


ConversationParameter = Annotated[
    Annotated[SessionId, Tag("<string>")]
    | Annotated[NamedConversation, Tag("<object>")]
    | Annotated[None, Tag("<null>")],
    Discriminator(_conversation_kind),
]


def conversation_id(named: str | NamedConversation | None) -> str | None:
    """The id of the conversation that is named."""
    return named.id if isinstance(named, NamedConversation) else named


class StreamOptions(Wire):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(default=None, description=NO_EFFECT)


class SamplingRequest(Wire):
    """What requests for chats and for text completions have in common."""

    model: ModelName
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_MAX)] | None = None
    stop: Stop = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=STOP_TOKEN_IDS_MAX)] | None = None
    n: Annotated[int, Field(ge=1, le=CHOICES_MAX)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    logit_bias: Annotated[dict[TokenIdText, Bias], Field(max_length=LOGIT_BIAS_MAX)] | None = None
    priority: Literal["interactive", "batch"] | None = None
    deterministic: bool | None = None
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] | None = None
    seed: Annotated[int, Field(ge=INT64_MIN, le=INT64_MAX)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Metadata | None = None
    user: Label | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatRequest(SamplingRequest):
    """A request for a chat completion."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_MAX)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=TOP_LOGPROBS_MAX)] | None = None
    background: bool | None = None
    store: bool | None = None
    session_id: SessionId | None = None
    conversation: ConversationParameter = None
    session_mode: Literal["auto", "append", "strict"] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    reasoning_effort: Effort | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Label | None = None
    prompt_cache_options: dict[str, Any] | None = None
    keep_alive: Any = Field(default=None, description=NO_EFFECT)
    cache_prompt: Any = Field(default=None, description=NO_EFFECT)
    service_tier: Label | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    prediction: dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=TOOLS_MAX)] | None = None
    tool_choice: ToolChoiceParameter = None
    parallel_tool_calls: bool | None = None


class SessionUpdate(Wire):
    """What to change in a session: what is left out stays as it is, and so does metadata that is null."""

    metadata: Metadata | None = Field(default=None, description="Replaces all of it.")
    ttl_s: Annotated[int, Field(ge=1, le=TTL_S_MAX)] | None = Field(default=None, description="null is for ever.")


class SessionRequest(Wire):
    """A request for a new session."""

    session_id: SessionId | None = None
    metadata: Metadata | None = None
    ttl_s: Annotated[int, Field(ge=1, le=TTL_S_MAX)] | None = None
    messages: list[ChatMessage] = Field(default_factory=list)
