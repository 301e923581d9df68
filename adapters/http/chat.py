"""POST /v1/chat/completions: from the wire to the use case, and its answer back, whole or streamed."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

from sanic import HTTPResponse

from manent.adapters.http.answers import members_answer, queue_headers, session_headers
from manent.adapters.http.chat_command import chat_command, read_chat_request
from manent.adapters.http.chat_stream import stream_completion, told_error
from manent.adapters.http.completion_members import completion_members
from manent.adapters.http.context import Exchange
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.retries import Retry
from manent.adapters.http.wire_requests import ChatRequest
from manent.domain.errors import CompletionCancelledError
from manent.domain.usecases.reader import Reader
from manent.domain.usecases.running import RunningCompletion


async def create_chat_completion(exchange: Exchange) -> HTTPResponse | None:
    """Answer a chat; None where the answer was streamed.

    A client that disconnects has its handler cancelled, at whatever it waits for; the completion is told at once, or
    after the time in which an SDK that tries again would have come back.
    """
    asked = await read_body(
        exchange.request,
        lambda: read_chat_request(json_object(exchange.request), messages_max=exchange.limits.messages_max),
    )
    exchange.request.watch_connection()
    with exchange.request.streams.place() if asked.stream else nullcontext():
        return await _answer(exchange, asked)


async def _answer(exchange: Exchange, asked: ChatRequest) -> HTTPResponse | None:
    retry = Retry.of(exchange)
    running = None if retry is None else retry.attached()
    if running is None:
        running = exchange.services.chat.start(await chat_command(asked, exchange))
    if retry is not None:
        retry.remember(running)
    if asked.background:
        running.join()  # the log reads along
    exchange.request.completion = running
    reader = Reader(running)
    try:
        if asked.stream:
            await stream_completion(exchange, reader, include_usage=asked.includes_usage)
            return None
        return await _whole_completion(running)
    except asyncio.CancelledError:
        if asked.stream or retry is None:
            reader.leave("client_disconnected")
        else:
            retry.leave_later(reader, "client_disconnected")
        raise
    except CompletionCancelledError as error:
        raise told_error(running, error) from None


async def _whole_completion(running: RunningCompletion) -> HTTPResponse:
    accepted = await running.accepted()
    generated = await running.generated()
    members = completion_members(accepted.requested, generated, running.output.choices)
    return members_answer(members, headers={**session_headers(running.session_id), **queue_headers(running)})
