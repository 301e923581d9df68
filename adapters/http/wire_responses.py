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


class Model(Answer):
    """A model of the registry: OpenAI's members, and how it stands."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    type: Literal["llm", "vlm", "embedding"] = Field(
        description="What it is for: chats, with images or without, or embeddings."
    )
    aliases: list[str]
    input_modalities: list[Literal["text", "image"]] = Field(description="What may be in messages for it.")
    context_length: int = Field(description="Tokens of prompt and output together.")
    available: bool = Field(description="Whether its folder is there.")
    status: Literal["unloaded", "loading", "loaded", "unloading", "suspended"]
    pinned: bool
    requests: int = Field(description="How many use it or wait for it.")
    memory_bytes: int = Field(description="What its process holds now.")
    expected_memory_bytes: int | None = Field(description="What loading it is expected to take.")
    progress: float | None = Field(description="Of a load: the share of the expected memory that is there, 0 to 1.")
    loading_s: float | None
    idle_s: float | None
    idle_timeout_s: float | None = Field(description="After how long unused it is unloaded; null is never.")
    failure: str | None = Field(description="What failed last, until it works again.")
    retry_after_s: float | None = Field(description="Of a suspended model: when it is tried again.")


class ModelUnloaded(Answer):
    """A model was unloaded; ``unloaded`` is false where it was not in memory."""

    id: str
    object: Literal["model.unloaded"] = "model.unloaded"
    unloaded: bool


class ModelMemory(Answer):
    """The memory of models, measured now, in GB of 10⁹ bytes."""

    object: Literal["memory"] = "memory"
    total_gb: float = Field(description="What the machine has, or what MANENT_MEMORY_TOTAL_GB says.")
    available_gb: float = Field(description="What models may still take without another one being unloaded.")
    models_loaded: dict[str, float] = Field(description="What the process of each model holds.")
    reserved_gb: float = Field(description="Kept for the system and others.")
    margin_gb: float = Field(description="Kept free for models to grow into.")
    models_gb: float = Field(description="What models may hold together.")
    used_gb: float = Field(description="What they hold.")


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


class ImageContent(Answer):
    """An image; an export as messages has its bytes."""

    type: Literal["image"] = "image"
    digest: str = Field(description="sha256:<hex> of the file.")
    media_type: str
    width: int = Field(description="Pixels, with the file's orientation applied.")
    height: int
    size_bytes: int
    detail: Literal["auto", "low", "high", "original"]


class SessionMessage(Answer):
    """A message of a session. ``content`` is all of its text; ``content_parts`` its parts if several, or images."""

    id: str
    object: Literal["session.message"] = "session.message"
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    content_parts: list[ContentPart | ImageContent] | None
    name: str | None
    tool_calls: list[dict[str, Any]] | None = Field(default=None, description="As OpenAI has them.")
    tool_call_id: str | None = None
    reasoning_content: str | None = None


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
    """Whether requests can be served, what stands in the way, and what does not work as it should meanwhile."""

    status: Literal["ready", "degraded", "not_ready"]
    problems: dict[str, str]
    degraded: dict[str, str]


class Welcome(Answer):
    """Where things are."""

    name: Literal["manent"] = "manent"
    version: str
    api: str = "/v1"
    openapi: str = "/openapi.json"
    docs: str = "/docs"
