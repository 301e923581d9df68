"""Responses over HTTP: create, retrieve, follow again, cancel, delete, what one was asked, counting tokens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, get_args

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer, queue_headers, session_headers
from manent.adapters.http.chat_stream import told_error
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.query import FlagQuery, IntQuery, ListQuery, QueryParameter, TextQuery
from manent.adapters.http.response_answer import response_answer
from manent.adapters.http.response_attempt import ResponseAttempt
from manent.adapters.http.response_command import (
    RESPONSE_NAMES,
    in_other_words,
    input_command,
    read_input_request,
    read_response_request,
    response_command,
)
from manent.adapters.http.response_items import item_list
from manent.adapters.http.response_stream import frame_of_new, stream_new, stream_recorded
from manent.adapters.http.wire_response_answers import InputTokens, Response, ResponseDeleted
from manent.adapters.http.wire_response_requests import Includable, ResponseRequest
from manent.domain.errors import CompletionCancelledError
from manent.domain.output_pieces import pieces_of
from manent.domain.usecases.conversation_items import item_page
from manent.domain.usecases.create_response import ResponseCommand
from manent.domain.usecases.running import RunningCompletion

INCLUDE_QUERY = ListQuery(
    name="include",
    says="message.input_image.image_url gives images with their bytes; the others have nothing to include",
    choices=get_args(Includable),
)
RESPONSE_QUERY: Sequence[QueryParameter] = (
    FlagQuery(name="stream", says="the response as server-sent events, from its beginning"),
    IntQuery(
        name="starting_after",
        says="only events with higher numbers; as a Last-Event-ID header does",
        minimum=0,
        maximum=2**53,
    ),
    FlagQuery(name="include_obfuscation", says="accepted without effect"),
    INCLUDE_QUERY,
)
LAST_EVENT_ID = re.compile(r"[0-9]{1,15}", re.ASCII)
ITEMS_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="after", says="the id of the item that the page begins behind"),
    IntQuery(name="limit", says="how many items to return", minimum=1, maximum=100, default=20),
    TextQuery(name="order", says="asc begins with the oldest item", choices=("asc", "desc"), default="desc"),
    INCLUDE_QUERY,
)


@in_other_words(RESPONSE_NAMES)
async def create_response(exchange: Exchange) -> HTTPResponse | None:
    """Answer with a response; None where it was streamed. A background one is answered with as soon as it is recorded.

    A client that disconnects has its handler cancelled, at whatever it waits for; the response is told at once.
    """
    body, asked = await read_body(exchange.request, lambda: _read(exchange))
    exchange.request.watch_connection()
    with exchange.request.streams.place() if asked.stream else nullcontext():
        command = await response_command(asked, body, exchange)
        attempt = ResponseAttempt(exchange, command)
        try:
            if asked.stream:
                await stream_new(exchange, command, attempt)
                return None
            return await _whole(exchange, command, await attempt.start())
        except asyncio.CancelledError:
            attempt.leave("client_disconnected")
            raise


async def _whole(exchange: Exchange, command: ResponseCommand, running: RunningCompletion) -> HTTPResponse:
    """The response as it ended; in the background, as it was accepted."""
    frame = await frame_of_new(command, running)
    headers = {**session_headers(frame.requested.session_id), **queue_headers(running)}
    if command.details.background and not running.ended:
        return json_answer(Response.model_validate(frame.queued()), headers=headers)
    if command.details.background:
        found = await exchange.services.responses.read.get(exchange.principal, running.completion_id)
        return json_answer(response_answer(found), headers=headers)
    try:
        generated = await running.generated()
    except CompletionCancelledError as error:
        raise told_error(running, error) from None
    told = frame.ended(generated, pieces_of(running.produced))
    return json_answer(Response.model_validate(told), headers=headers)


async def retrieve_response(exchange: Exchange, response_id: str) -> HTTPResponse | None:
    """A response as it stands, or its stream once more; None where it was streamed."""
    streams = exchange.query["stream"]
    if exchange.query["starting_after"] is not None and not streams:
        raise RequestRefused(
            "invalid_value", "starting_after is only allowed when stream is true", param="starting_after"
        )
    after = _after(exchange) if streams else None
    found = await exchange.services.responses.read.get(exchange.principal, response_id)
    if not streams:
        return json_answer(response_answer(found), headers=session_headers(found.session_id))
    with exchange.request.streams.place():
        await stream_recorded(exchange, found, after=after)
    return None


async def cancel_response(exchange: Exchange, response_id: str) -> HTTPResponse:
    """Stop a background response."""
    cancel, request_id = exchange.services.responses.cancel, exchange.request.request_id
    return json_answer(response_answer(await cancel.run(exchange.principal, response_id, request_id=request_id)))


async def delete_response(exchange: Exchange, response_id: str) -> HTTPResponse:
    """Have a response told no more; the log keeps it."""
    request_id = exchange.request.request_id
    await exchange.services.responses.read.delete(exchange.principal, response_id, request_id=request_id)
    return json_answer(ResponseDeleted(id=response_id))


async def list_input_items(exchange: Exchange, response_id: str) -> HTTPResponse:
    """A page of the items that the model saw, without instructions."""
    query = exchange.query
    messages = await exchange.services.responses.read.input(exchange.principal, response_id)
    page = item_page(messages, after=query["after"], limit=query["limit"], descending=query["order"] == "desc")
    return json_answer(item_list(page, query["include"]))


@in_other_words(RESPONSE_NAMES)
async def count_input_tokens(exchange: Exchange) -> HTTPResponse:
    """How many tokens a response would begin with."""
    limit = exchange.limits.messages_max
    asked = await read_body(
        exchange.request, lambda: read_input_request(json_object(exchange.request), items_max=limit)
    )
    command = await input_command(asked, exchange)
    return json_answer(InputTokens(input_tokens=await exchange.services.responses.create.count_input(command)))


def _read(exchange: Exchange) -> tuple[dict[str, Any], ResponseRequest]:
    body = json_object(exchange.request)
    return body, read_response_request(body, items_max=exchange.limits.messages_max)


def _after(exchange: Exchange) -> int | None:
    """Behind which event the stream begins: ``starting_after``, or what a reader of events sends by itself."""
    after: int | None = exchange.query["starting_after"]
    last_id = exchange.request.headers.get("last-event-id")
    if not last_id:
        return after
    if not LAST_EVENT_ID.fullmatch(last_id):
        raise RequestRefused(
            "invalid_value",
            f"Last-Event-ID is {last_id[:80]!r}; it must be the sequence_number of an event of this response",
            param="Last-Event-ID",
        )
    if after not in {None, int(last_id)}:
        raise RequestRefused(
            "invalid_value",
            f"starting_after is {after} and Last-Event-ID {last_id}; they are two names of one thing, send one of them",
            param="starting_after",
        )
    return int(last_id)
