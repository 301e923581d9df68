"""What clients get, as pydantic models: the source of the OpenAPI schemas, and what tests check answers against."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """A response model; no field that it does not know is ever sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorDetail(Answer):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answer):
    """OpenAI's error envelope."""

    error: ErrorDetail


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


class AssistantMessage(Answer):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(Answer):
    """The one choice of a completion."""

    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


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


class Delta(Answer):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None


class ChunkChoice(Answer):
    """The one choice of a chunk."""

    index: int
    delta: Delta
    logprobs: None = None
    finish_reason: Literal["stop", "length"] | None


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


class Model(Answer):
    """A model of the registry."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(Answer):
    """All models of the registry; not paged, as in OpenAI's API."""

    object: Literal["list"] = "list"
    data: list[Model]


SessionStatus = Literal["open", "expired", "deleted"]


class ForkOf(Answer):
    """Where a session branched off."""

    session_id: str
    version: int


class Session(Answer):
    """A session as it stands."""

    id: str
    object: Literal["session"] = "session"
    created_at: int = Field(description="Seconds since 1970.")
    updated_at: int = Field(description="Seconds since 1970, when its last event happened.")
    status: SessionStatus
    owner: str
    metadata: dict[str, str]
    ttl_s: int | None = Field(description="It expires so many seconds after its last event; null is never.")
    expires_at: int | None = Field(
        description="Seconds since 1970, if nothing happens in it before; null is never, or not before an answer."
    )
    parent: ForkOf | None
    version: int = Field(description="How many events its stream holds; the number in its ETag.")
    message_count: int | None = Field(description="null in lists, where counting would read every conversation.")


class SessionList(Answer):
    """A page of sessions; ``last_id`` goes into ``after`` for the next one."""

    object: Literal["list"] = "list"
    data: list[Session]
    first_id: str | None
    last_id: str | None
    has_more: bool


class SessionDeleted(Answer):
    """A session was deleted; the log keeps what was recorded."""

    id: str
    object: Literal["session.deleted"] = "session.deleted"
    deleted: Literal[True] = True


class ContentPart(Answer):
    """A piece of text."""

    type: Literal["text"] = "text"
    text: str


class SessionMessage(Answer):
    """A message of a session. ``content`` is all of its text; ``content_parts`` its parts where it has several."""

    id: str
    object: Literal["session.message"] = "session.message"
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    content_parts: list[ContentPart] | None
    name: str | None


class SessionMessageList(Answer):
    """A page of a session's messages; ``last_id`` goes into ``after`` for the next one."""

    object: Literal["list"] = "list"
    data: list[SessionMessage]
    first_id: str | None
    last_id: str | None
    has_more: bool


class EventHeader(Answer):
    """The hashed part of an event: exactly the members of the log format, sorted by name."""

    actor: str
    causation_id: str | None
    correlation_id: str | None
    event_id: str
    log_id: str
    payload_digest: str = Field(description="SHA-256 of salt and payload bytes, in hex.")
    position: int
    recorded_at_us: int
    request_id: str | None
    schema_version: int
    stream_id: str
    stream_version: int
    tenant: str
    type: str


class Event(Answer):
    """An event of the log; ``payload`` stands byte for byte as it was digested, and is null once erased."""

    object: Literal["event"] = "event"
    header: EventHeader
    payload: dict[str, Any] | None
    salt: str | None = Field(description="Base64; null once erased.")


class EventList(Answer):
    """A page of the log. ``first_id`` and ``last_id`` are positions; ``last_id`` goes into ``after``."""

    object: Literal["list"] = "list"
    data: list[Event]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Live(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str


class Ready(Answer):
    """Whether requests can be served, and what stands in the way."""

    status: Literal["ready", "not_ready"]
    problems: dict[str, str]


class Welcome(Answer):
    """Where things are."""

    name: Literal["manent"] = "manent"
    version: str
    api: str = "/v1"
    openapi: str = "/openapi.json"
    docs: str = "/docs"
