"""What clients say on a WebSocket: one JSON object a message, strictly read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.json_body import LARGE_BODY_BYTES, parse_json
from manent.adapters.http.validation import validated
from manent.adapters.http.wire import Wire

MessageId = Annotated[str, Field(min_length=1, max_length=128)]


class ChatMessage(Wire):
    """A chat; ``body`` is that of ``POST /v1/chat/completions``, and it is always streamed.

    ``idempotency_key`` and ``if_match`` are the headers of these names there.
    """

    type: Literal["chat"]
    id: MessageId
    body: dict[str, Any]
    idempotency_key: str | None = None
    if_match: str | None = None


class ResumeMessage(Wire):
    """Go on with a streamed completion behind ``cursor`` or, without one, from its beginning."""

    type: Literal["resume"]
    id: MessageId
    completion_id: Annotated[str, Field(min_length=1, max_length=256)]
    cursor: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    include_usage: bool = False


class CancelMessage(Wire):
    """Stop the request with this ``id``; where none has it, because it ended say, nothing happens."""

    type: Literal["cancel"]
    id: MessageId


SocketMessage = ChatMessage | ResumeMessage | CancelMessage

MESSAGES: Mapping[str, type[ChatMessage | ResumeMessage | CancelMessage]] = {
    "chat": ChatMessage,
    "resume": ResumeMessage,
    "cancel": CancelMessage,
}


async def read_members(message: bytes) -> dict[str, Any]:
    """The object that ``message`` is; of a large one it is found out in a thread.

    Raises:
        RequestRefused: it is none.
    """
    value = parse_json(message) if len(message) < LARGE_BODY_BYTES else await asyncio.to_thread(parse_json, message)
    if not isinstance(value, dict):
        raise RequestRefused("invalid_json", 'a message must be a JSON object, such as {"type": "chat", …}')
    return value


def id_of(members: Mapping[str, Any]) -> str | None:
    """The id with which an answer finds its request, if there is one."""
    found = members.get("id")
    return found if isinstance(found, str) and 1 <= len(found) <= 128 else None  # noqa: PLR2004 (as MessageId)


def read_message(members: Mapping[str, Any]) -> SocketMessage:
    """The message of these members.

    Raises:
        RequestRefused: it is none of those that are known.
    """
    kind = members.get("type")
    model = MESSAGES.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise RequestRefused(
            "missing_required_parameter" if kind is None else "invalid_value",
            f"type is {str(kind)[:80]!r}; it must be one of {', '.join(MESSAGES)}",
            param="type",
        )
    unknown = next((name for name in members if name not in model.model_fields), None)
    if unknown is not None:
        raise RequestRefused("unknown_parameter", f"Unknown parameter: {unknown[:80]!r}.", param=unknown[:80])
    return validated(model, members)
