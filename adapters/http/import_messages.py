"""OpenAI's messages as a file to import: ``{"messages": [...]}`` or the bare list, all roles, tool calls included."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.json_body import parse_json
from manent.adapters.http.message_parts import image_sources, text_parts
from manent.adapters.http.validation import validated
from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_requests import Content
from manent.domain.errors import ImportRefused, InvalidValue
from manent.domain.images import ImageReader
from manent.domain.messages import Message, Role, ToolCall
from manent.domain.ports import Ids
from manent.domain.usecases.import_session import SessionFile, check_length

LISTED = "messages"


class _Function(Wire):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str


class _Call(Wire):
    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: _Function


class _Message(Wire):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    tool_calls: list[_Call] = Field(default_factory=list)
    tool_call_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    reasoning_content: str | None = None


def read_messages_file(data: bytes, ids: Ids, images: ImageReader) -> SessionFile:
    """The conversation in a file of messages.

    Raises:
        ImportRefused: it is no JSON of that kind; the message names the line, or the message, and what is wrong in it.
    """
    try:
        value = parse_json(data)
    except RequestRefused as refused:
        raise ImportRefused(refused.message.replace("the request's body", "the file")) from None
    listed = value.get(LISTED) if isinstance(value, dict) else value
    if not isinstance(listed, list):
        raise ImportRefused('the file is neither events, nor {"messages": [...]}, nor a list of messages')
    if isinstance(value, dict) and (others := [name for name, member in value.items() if name != LISTED and member]):
        raise ImportRefused(f"the file has {others[0][:80]!r} beside messages, which a session cannot keep")
    if not listed:
        raise ImportRefused("the file holds no messages")
    check_length(len(listed))
    return SessionFile(
        format="messages",
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        messages=tuple(_message(member, number, ids, images) for number, member in enumerate(listed)),
        metadata={},
    )


def _message(member: Any, number: int, ids: Ids, images: ImageReader) -> Message:
    if not isinstance(member, dict):
        raise ImportRefused(f"messages[{number}] is no object")
    try:
        asked = validated(_Message, _told(member))
        shown = images.read_embedded(list(image_sources(asked.content, role=asked.role, param="")))
    except (RequestRefused, InvalidValue, ValidationError) as refused:
        raise ImportRefused(f"messages[{number}]: {refused}") from None
    return Message(
        message_id=ids.new("msg_"),
        role=Role.SYSTEM if asked.role == "developer" else Role(asked.role),
        content=text_parts(asked.content),
        name=asked.name,
        tool_calls=tuple(
            ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in asked.tool_calls
        ),
        tool_call_id=asked.tool_call_id,
        images=tuple(shown),
        reasoning=asked.reasoning_content,
    )


def _told(member: Mapping[str, Any]) -> dict[str, Any]:
    """What a message says: clients write down many members that say nothing."""
    return {name: value for name, value in member.items() if value is not None and (value != [] or name == "content")}
