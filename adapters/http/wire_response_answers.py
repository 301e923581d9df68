"""What clients get for responses and conversations, as pydantic models: every member, always."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from manent.adapters.http.wire_completions import TokenLogprob
from manent.adapters.http.wire_responses import Answer

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(Answer):
    """A piece of text that the assistant said."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = Field(default_factory=list)
    logprobs: list[TokenLogprob] = Field(default_factory=list)


class InputText(Answer):
    """A piece of text that somebody else said."""

    type: Literal["input_text"] = "input_text"
    text: str


class InputImage(Answer):
    """An image; its bytes are there where ``include`` has message.input_image.image_url."""

    type: Literal["input_image"] = "input_image"
    detail: Literal["auto", "low", "high", "original"]
    file_id: None = None
    image_url: str | None = None


class ReasoningText(Answer):
    """A piece of reasoning."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class MessageItemAnswer(Answer):
    """A message."""

    id: str
    type: Literal["message"] = "message"
    status: ItemStatus
    role: Literal["user", "assistant", "system"]
    content: list[OutputText | InputText | InputImage]


class ReasoningItemAnswer(Answer):
    """What the assistant thought, in clear."""

    id: str
    type: Literal["reasoning"] = "reasoning"
    status: ItemStatus
    summary: list[Any] = Field(default_factory=list)
    content: list[ReasoningText]
    encrypted_content: None = None


class FunctionCallAnswer(Answer):
    """A function call that the assistant asks for."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class CustomToolCallAnswer(Answer):
    """A call of a custom tool that the assistant asks for."""

    id: str
    type: Literal["custom_tool_call"] = "custom_tool_call"
    status: ItemStatus
    call_id: str
    name: str
    input: str


class CallOutputAnswer(Answer):
    """What a tool returned."""

    id: str
    type: Literal["function_call_output", "custom_tool_call_output"]
    status: ItemStatus
    call_id: str
    output: str | list[InputText]


OutputItemAnswer = MessageItemAnswer | ReasoningItemAnswer | FunctionCallAnswer | CustomToolCallAnswer
ItemAnswer = OutputItemAnswer | CallOutputAnswer


class ConversationItem(RootModel[ItemAnswer]):
    """An item of a conversation."""


class ItemList(Answer):
    """A page of items; ``last_id`` goes into ``after`` for the next one."""

    object: Literal["list"] = "list"
    data: list[ItemAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokensDetails(Answer):
    """How the input was evaluated; ``cache_write_tokens`` is OpenAI's price for keeping it, here always 0."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Answer):
    """What the output consists of."""

    reasoning_tokens: int


class ResponseUsage(Answer):
    """Exact token counts, from the tokenizer."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(Answer):
    """Why it failed; ``message`` begins with Manent's own code."""

    code: Literal["server_error"] = "server_error"
    message: str


class IncompleteDetails(Answer):
    """Why it is incomplete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ConversationOfResponse(Answer):
    """The conversation that the response belongs to."""

    id: str


class Response(Answer):
    """A response. ``session_id``, Manent's, names the session that it stands in, also where that is its own chain."""

    id: str
    object: Literal["response"] = "response"
    created_at: int = Field(description="Seconds since 1970, when the request was accepted.")
    completed_at: int | None = Field(description="Seconds since 1970; null unless it is completed.")
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    model: str = Field(description="The id of the model that answers, also where an alias was asked for.")
    output: list[OutputItemAnswer]
    previous_response_id: str | None
    conversation: ConversationOfResponse | None
    session_id: str | None
    metadata: dict[str, str]
    usage: ResponseUsage | None
    store: bool
    temperature: float
    top_p: float
    top_logprobs: int
    frequency_penalty: float
    presence_penalty: float
    max_output_tokens: int | None
    max_tool_calls: int | None
    parallel_tool_calls: bool
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    text: dict[str, Any]
    reasoning: dict[str, Any]
    truncation: Literal["auto", "disabled"]
    service_tier: Literal["default"] = "default"
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None


class ResponseStreamEvent(BaseModel):
    """An event of a response's stream: its type says what else it has, as in OpenAI's API."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    sequence_number: int


class ResponseDeleted(Answer):
    """A response was deleted; its conversation stands, and the log keeps what was recorded."""

    id: str
    object: Literal["response.deleted"] = "response.deleted"
    deleted: Literal[True] = True


class InputTokens(Answer):
    """How many tokens the model would be given."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class Conversation(Answer):
    """A conversation: a session through OpenAI's noun."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]


class ConversationDeleted(Answer):
    """A conversation was deleted; the log keeps what was recorded."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: Literal[True] = True
