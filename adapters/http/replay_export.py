"""GET /v1/sessions/{id}/export: a conversation as its events, as OpenAI's messages, or as Markdown to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

import msgspec
from sanic import HTTPResponse

from manent.adapters.http.answers import JSON_TYPE, bytes_answer, tool_calls_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.events import event_members
from manent.adapters.http.message_parts import openai_content
from manent.adapters.http.query import QueryParameter, TextQuery
from manent.adapters.http.replay_moment import AS_OF_QUERY, asked_moment
from manent.adapters.http.request_log import log_stream
from manent.adapters.http.sessions import possible_id
from manent.domain.messages import Message
from manent.domain.records import LogEntry
from manent.domain.session import SessionState
from manent.domain.usecases.replay import NOW

NDJSON_TYPE = "application/x-ndjson"
MARKDOWN_TYPE = "text/markdown; charset=utf-8"
OTHER_TYPES = (JSON_TYPE, "text/markdown")
FORMATS = ("events", "messages", "markdown")

EXPORT_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="format", says="events and messages can be imported again", choices=FORMATS, default="events"),
    *AS_OF_QUERY,
)


async def export_session(exchange: Exchange, session_id: str) -> HTTPResponse | None:
    """Export a session; events are streamed (None), since their ancestors' come with them."""
    asked = asked_moment(exchange.query) or NOW
    export = await exchange.services.replays.recorded.export.open(exchange.principal, possible_id(session_id), asked)
    if exchange.query["format"] == "messages":
        return bytes_answer(await asyncio.to_thread(messages_file, export.state), JSON_TYPE)
    if exchange.query["format"] == "markdown":
        return bytes_answer(await asyncio.to_thread(markdown_file, export.state), MARKDOWN_TYPE)
    await _stream(exchange, exchange.services.replays.recorded.export.events(export))
    return None


async def _stream(exchange: Exchange, pages: AsyncGenerator[Sequence[LogEntry], None]) -> None:
    """Send page after page, each once the client has read what went before; a client that leaves ends it."""
    exchange.request.is_stream = True
    response = cast("HTTPResponse", await exchange.request.respond(status=200, content_type=NDJSON_TYPE))
    outcome = "client_disconnected"
    try:
        async with aclosing(pages):
            async for page in pages:
                await response.send(b"".join(map(event_line, page)))
        await response.send(b"", end_stream=True)
        outcome = "done"
    except BaseException:
        # The status is out: a body that does not end is all that can tell that something is missing.
        exchange.request.close_after_answer()
        exchange.request.break_off()
        raise
    finally:
        log_stream(exchange.request, outcome)


def event_line(entry: LogEntry) -> bytes:
    """An event as a line of a file."""
    return msgspec.json.encode(event_members(entry)) + b"\n"


def messages_file(state: SessionState) -> bytes:
    """The conversation as ``{"messages": [...]}``, as OpenAI's chat completions take it."""
    return msgspec.json.encode({"messages": [_openai_message(message) for message in state.messages]}) + b"\n"


def markdown_file(state: SessionState) -> bytes:
    """The conversation to be read; what was said stands in quotes, so that it cannot pass for what was not."""
    lines = [f"# Session {state.session_id}", "", f"Version {state.version}, {len(state.messages)} messages."]
    for number, message in enumerate(state.messages, start=1):
        name = "" if message.name is None else f" ({message.name})"
        lines += ["", f"## {number}. {message.role}{name}", ""]
        lines += [f"> {line}".rstrip() for line in message.text.splitlines()] or (["> "] if message.content else [])
        lines += [
            f"> [{image.media_type}, {image.width} x {image.height} pixels, {image.digest}]" for image in message.images
        ]
        lines += [f"> `{call.name}({call.arguments})`" for call in message.tool_calls]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _openai_message(message: Message) -> dict[str, Any]:
    members: dict[str, Any] = {"role": message.role.value}
    members["content"] = openai_content(message)
    if message.name is not None:
        members["name"] = message.name
    if message.tool_calls:
        members["tool_calls"] = tool_calls_answer(message.tool_calls)
    if message.tool_call_id is not None:
        members["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        members["reasoning_content"] = message.reasoning
    return members
