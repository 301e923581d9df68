"""What clients send for responses and conversations, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_requests import (
    INT64_MAX,
    INT64_MIN,
    MAX_TOKENS_MAX,
    TIMEOUT_S_MAX,
    TOP_LOGPROBS_MAX,
    ConversationParameter,
    Effort,
    Label,
    Metadata,
    Penalty,
    SessionId,
    Stop,
    conversation_id,
)
from manent.adapters.http.wire_response_items import InputItem, Lenient
from manent.adapters.http.wire_tools import TOOLS_MAX, Name

ITEMS_PER_CALL_MAX = 20
CALLABLE = ("function", "custom")
"""Kinds of tools that can be called; a tuple, since a client may send what no set can hold."""

Includable = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


def _input_kind(value: Any) -> str | None:
    if value is None:
        return "<null>"
    if isinstance(value, str):
        return "<string>"
    return "<items>" if isinstance(value, list) else None


Input = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[InputItem], Tag("<items>")] | Annotated[None, Tag("<null>")],
    Discriminator(_input_kind),
]


class ResponseFunctionTool(Lenient):
    """A function that may be called; ``parameters`` is a JSON schema of its arguments."""

    type: Literal["function"]
    name: Name
    description: Annotated[str, Field(max_length=16 * 1024)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(default=None, description="Have the arguments enforced, whatever tool_choice is.")


class ResponseCustomTool(Lenient):
    """A tool that takes text; ``format`` is told to the model, and not enforced."""

    type: Literal["custom"]
    name: Name
    description: Annotated[str, Field(max_length=16 * 1024)] | None = None
    format: dict[str, Any] | None = None


class HostedTool(Lenient):
    """A tool of OpenAI's own, which Manent does not have: told back, and not shown to the model."""

    type: Annotated[str, Field(min_length=1, max_length=64)]


def _tool_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{kind}>" if kind in CALLABLE else "<hosted>"


ResponseTool = Annotated[
    Annotated[ResponseFunctionTool, Tag("<function>")]
    | Annotated[ResponseCustomTool, Tag("<custom>")]
    | Annotated[HostedTool, Tag("<hosted>")],
    Discriminator(_tool_kind),
]


class ChosenTool(Lenient):
    """The tool that must be called, or those that may: of type ``allowed_tools`` with ``mode`` and ``tools``."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    name: Name | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=TOOLS_MAX)] | None = None


def _choice_kind(value: Any) -> str | None:
    if value is None:
        return "<null>"
    if isinstance(value, str):
        return "<mode>"
    return "<tool>" if isinstance(value, dict | ChosenTool) else None


ResponseToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[ChosenTool, Tag("<tool>")]
    | Annotated[None, Tag("<null>")],
    Discriminator(_choice_kind),
]


class TextFormat(Wire):
    """The format of the answer's text."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    description: Annotated[str, Field(max_length=16 * 1024)] | None = None
    strict: bool | None = Field(default=None, description="The schema is enforced in any case.")


class TextConfig(Wire):
    """What is asked of the answer's text."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = Field(default=None, description="Accepted without effect.")


class ReasoningConfig(Lenient):
    """What is asked of the model's reasoning; ``summary`` is told back, and without effect."""

    effort: Effort | None = None
    summary: Label | None = None


class ResponseStreamOptions(Wire):
    """Options of a stream."""

    include_obfuscation: bool | None = Field(default=None, description="Accepted without effect.")


class ResponseInput(Wire):
    """What a response begins with: the same for asking for one and for counting its tokens."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Input = None
    instructions: str | None = None
    previous_response_id: Annotated[str, Field(max_length=1024)] | None = None
    conversation: ConversationParameter = None
    tools: Annotated[list[ResponseTool], Field(max_length=TOOLS_MAX)] | None = None
    tool_choice: ResponseToolChoice = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None

    @property
    def conversation_id(self) -> str | None:
        """The id of the conversation that is named."""
        return conversation_id(self.conversation)


class ResponseRequest(ResponseInput):
    """A request for a response."""

    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_MAX)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1, le=MAX_TOKENS_MAX)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=TOP_LOGPROBS_MAX)] | None = None
    include: Annotated[list[Includable], Field(max_length=32)] | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Label | None = None
    prompt_cache_options: dict[str, Any] | None = None
    access_programs: dict[str, Any] | None = None
    background_options: dict[str, Any] | None = None
    client_metadata: dict[str, Any] | None = None
    image: dict[str, Any] | None = None
    session_id: SessionId | None = None
    seed: Annotated[int, Field(ge=INT64_MIN, le=INT64_MAX)] | None = None
    stop: Stop = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    priority: Literal["interactive", "batch"] | None = None
    deterministic: bool | None = None
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] | None = None


class InputTokensRequest(ResponseInput):
    """A request for the number of tokens that a response would begin with."""

    personality: Label | None = None


class ConversationRequest(Wire):
    """A request for a new conversation."""

    items: Annotated[list[InputItem], Field(max_length=ITEMS_PER_CALL_MAX)] | None = None
    metadata: Metadata | None = None


class ConversationUpdate(Wire):
    """What to change in a conversation."""

    metadata: Metadata | None = Field(description="Replaces all of it; null is none.")


class ItemsRequest(Wire):
    """Items to add to a conversation."""

    items: Annotated[list[InputItem], Field(min_length=1, max_length=ITEMS_PER_CALL_MAX)]
