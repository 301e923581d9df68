"""GET /v1/chat/completions/{id}/stream: a streamed completion from where its reader lost it, or from its beginning."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from manent.adapters.http.chat_stream import resume_stream
from manent.adapters.http.context import Exchange
from manent.adapters.http.query import QueryParameter, TextQuery
from manent.adapters.http.replay_context import possible_completion
from manent.adapters.http.stream_cursor import Cursor
from manent.domain.usecases.reader import Reader

RESUME_QUERY: Sequence[QueryParameter] = (
    TextQuery(
        name="starting_after",
        says="the id of the last event that the client has; a Last-Event-ID header goes before it",
    ),
    TextQuery(
        name="include_usage",
        says="whether it ends with a chunk of the usage, as stream_options.include_usage has it",
        choices=("true", "false"),
        default="false",
    ),
)


async def resume_chat_completion(exchange: Exchange, completion_id: str) -> None:
    """Go on with a stream; a client that disconnects leaves it as any other reader does."""
    written = exchange.request.headers.get("last-event-id") or exchange.query.get("starting_after")
    cursor = Cursor.read(written) if written else Cursor()
    exchange.request.watch_connection()
    await resume_chat(exchange, completion_id, cursor, include_usage=exchange.query["include_usage"] == "true")


async def resume_chat(exchange: Exchange, completion_id: str, cursor: Cursor, *, include_usage: bool) -> None:
    """Stream what comes behind ``cursor``."""
    reader = Reader(await exchange.services.resume.resume(exchange.principal, possible_completion(completion_id)))
    try:
        with exchange.request.streams.place():
            await resume_stream(exchange, reader, cursor, include_usage=include_usage)
    except asyncio.CancelledError:
        reader.leave("client_disconnected")
        raise
    except BaseException:
        reader.leave("stream_refused")
        raise
