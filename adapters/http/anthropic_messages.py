"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's API as one more view of chat completions."""

from __future__ import annotations

import asyncio

from sanic import HTTPResponse

from manent.adapters.http.answering import Wanted, answer_completion
from manent.adapters.http.answers import members_answer, queue_headers, session_headers
from manent.adapters.http.anthropic_answer import MessageAnswer, MessageEvents
from manent.adapters.http.anthropic_command import (
    MESSAGE_NAMES,
    message_command,
    read_count_request,
    read_message_request,
)
from manent.adapters.http.anthropic_content import domain_conversation
from manent.adapters.http.anthropic_errors import anthropic_words
from manent.adapters.http.anthropic_shape import shape_of_message
from manent.adapters.http.chat_stream import EventWriter, stream_accepted
from manent.adapters.http.context import Exchange
from manent.adapters.http.delta_feed import DeltaFeed
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.response_command import in_other_words
from manent.adapters.http.wire_anthropic_requests import MessageRequest
from manent.domain.output_pieces import PieceReader, pieces_of
from manent.domain.usecases.count_prompt import count_prompt
from manent.domain.usecases.reader import Reader
from manent.domain.usecases.running import Accepted, RunningCompletion


@in_other_words(MESSAGE_NAMES, schema="input_schema")
async def create_message(exchange: Exchange) -> HTTPResponse | None:
    """Answer a conversation; None where the answer was streamed."""
    asked = await read_body(
        exchange.request,
        lambda: read_message_request(json_object(exchange.request), messages_max=exchange.limits.messages_max),
    )

    async def whole(running: RunningCompletion) -> HTTPResponse:
        generated = await running.generated()
        accepted = await running.accepted()
        members = MessageAnswer(asked, accepted.requested).whole(generated, pieces_of(running.produced))
        return members_answer(members, headers={**session_headers(running.session_id), **queue_headers(running)})

    wanted = Wanted(stream=lambda reader: _stream(exchange, reader, asked), whole=whole, streams=bool(asked.stream))
    return await answer_completion(exchange, lambda: message_command(asked, exchange), wanted)


@in_other_words(MESSAGE_NAMES, schema="input_schema")
async def count_message_tokens(exchange: Exchange) -> HTTPResponse:
    """How many tokens the model would be given; nothing is generated, and nothing recorded."""
    asked = await read_body(
        exchange.request,
        lambda: read_count_request(json_object(exchange.request), messages_max=exchange.limits.messages_max),
    )
    services = exchange.services
    messages = await domain_conversation(asked, ids=services.ids, images=services.images)
    shape = shape_of_message(asked)
    counted = await count_prompt(services.engine, exchange.principal, asked.model, messages, shape=shape)
    return members_answer({"input_tokens": counted})


async def _stream(exchange: Exchange, reader: Reader, asked: MessageRequest) -> None:
    running = reader.running

    async def follow(writer: EventWriter, accepting: asyncio.Task[Accepted]) -> None:
        """Send everything, and the last events only once the end is committed."""
        accepted = await writer.kept_alive(accepting)
        events, pieces = MessageEvents(MessageAnswer(asked, accepted.requested)), PieceReader()
        await writer.send(events.start())
        async with DeltaFeed(running) as feed:
            while (taken := await feed.take(writer.ping_interval_s)) is not None:
                deltas = running.produced[taken.start : taken.end]
                data = events.pieces(piece for delta in deltas for piece in pieces.push(delta))
                await writer.send(data or writer.words.ping)
        await writer.end(events.finish(await running.generated()))

    words = anthropic_words(exchange.request)
    await stream_accepted(exchange, reader, lambda: EventWriter.open(exchange, reader, words=words), follow)
