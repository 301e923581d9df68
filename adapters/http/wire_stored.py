"""Stored chat completions on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_completions import ChatCompletion, ToolCallAnswer
from manent.adapters.http.wire_requests import Metadata
from manent.adapters.http.wire_responses import Answer


class StoredCompletionUpdate(Wire):
    """What to change in a stored completion."""

    metadata: Metadata | None = Field(description="Replaces all of it; null leaves none.")


class StoredChatCompletion(ChatCompletion):
    """A stored chat completion."""

    metadata: dict[str, str]


class StoredCompletionList(Answer):
    """A page of stored completions; ``last_id`` goes into ``after`` for the next one."""

    object: Literal["list"] = "list"
    data: list[StoredChatCompletion]
    first_id: str | None
    last_id: str | None
    has_more: bool


class StoredCompletionDeleted(Answer):
    """A stored completion is shown no more; the log keeps it."""

    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: Literal[True] = True


class StoredMessage(Answer):
    """A message that a completion answered. ``content_parts`` are its parts if several; of images the digest."""

    id: str
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None
    refusal: None = None
    content_parts: list[dict[str, Any]] | None
    name: str | None
    tool_calls: list[ToolCallAnswer] = Field(default_factory=list, description="Left out where there are none.")
    tool_call_id: str = Field(default="", description="Left out but in a tool's message.")


class StoredMessageList(Answer):
    """A page of messages; ``last_id`` goes into ``after`` for the next one."""

    object: Literal["list"] = "list"
    data: list[StoredMessage]
    first_id: str | None
    last_id: str | None
    has_more: bool
