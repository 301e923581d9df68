"""POST /v1/chat/completions: from the wire to the use case, and its answer back, whole or streamed."""

from __future__ import annotations

from sanic import HTTPResponse

from manent.adapters.http.answering import Wanted, answer_completion
from manent.adapters.http.answers import members_answer, queue_headers, session_headers
from manent.adapters.http.chat_command import chat_command, read_chat_request
from manent.adapters.http.chat_stream import stream_completion
from manent.adapters.http.completion_members import completion_members
from manent.adapters.http.context import Exchange
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.wire_requests import ChatRequest
from manent.domain.usecases.running import RunningCompletion


async def create_chat_completion(exchange: Exchange) -> HTTPResponse | None:
    """Answer a chat; None where the answer was streamed."""
    asked = await read_body(
        exchange.request,
        lambda: read_chat_request(json_object(exchange.request), messages_max=exchange.limits.messages_max),
    )
    return await answer_chat(exchange, asked)


async def answer_chat(exchange: Exchange, asked: ChatRequest) -> HTTPResponse | None:
    """Answer a chat that was read and checked; None where the answer was streamed."""
    wanted = Wanted(
        stream=lambda reader: stream_completion(exchange, reader, include_usage=asked.includes_usage),
        whole=_whole_completion,
        streams=bool(asked.stream),
        background=bool(asked.background),
    )
    return await answer_completion(exchange, lambda: chat_command(asked, exchange), wanted)


async def _whole_completion(running: RunningCompletion) -> HTTPResponse:
    generated = await running.generated()
    accepted = await running.accepted()
    members = completion_members(accepted.requested, generated, running.output.choices)
    return members_answer(members, headers={**session_headers(running.session_id), **queue_headers(running)})
