"""Responses over HTTP: create, retrieve, follow again, cancel, delete, what one was asked, counting tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, get_args

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer, queue_headers, session_headers
from manent.adapters.http.chat_stream import told_error
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.query import FlagQuery, IntQuery, ListQuery, QueryParameter, TextQuery
from manent.adapters.http.response_answer import response_answer
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

INCLUDE_QUERY = ListQuery(
    name="include",
    says="message.input_image.image_url gives images with their bytes; the others have nothing to include",
    choices=get_args(Includable),
)
RESPONSE_QUERY: Sequence[QueryParameter] = (
    FlagQuery(name="stream", says="the response as server-sent events, from its beginning"),
    IntQuery(name="starting_after", says="only events with higher numbers", minimum=0, maximum=2**53),
    FlagQuery(name="include_obfuscation", says="accepted without effect"),
    INCLUDE_QUERY,
)
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
    command = await response_command(asked, body, exchange)
    if asked.stream:
        await stream_new(exchange, command)
        return None
    running = await exchange.services.responses.create.start(command)
    frame = await frame_of_new(command, running)
    headers = {**session_headers(frame.requested.session_id), **queue_headers(running)}
    if asked.background:
        return json_answer(Response.model_validate(frame.in_progress()), headers=headers)
    try:
        generated = await running.generated()
    except asyncio.CancelledError:
        running.leave("client_disconnected")
        raise
    except CompletionCancelledError as error:
        raise told_error(running, error) from None
    told = frame.ended(generated, pieces_of(running.produced))
    return json_answer(Response.model_validate(told), headers=headers)


async def retrieve_response(exchange: Exchange, response_id: str) -> HTTPResponse | None:
    """A response as it stands, or its stream once more; None where it was streamed."""
    query = exchange.query
    if query["starting_after"] is not None and not query["stream"]:
        raise RequestRefused(
            "invalid_value", "starting_after is only allowed when stream is true", param="starting_after"
        )
    found = await exchange.services.responses.read.get(exchange.principal, response_id)
    if not query["stream"]:
        return json_answer(response_answer(found), headers=session_headers(found.session_id))
    await stream_recorded(exchange, found, after=query["starting_after"])
    return None


async def cancel_response(exchange: Exchange, response_id: str) -> HTTPResponse:
    """Stop a background response."""
    return json_answer(response_answer(await exchange.services.responses.read.cancel(exchange.principal, response_id)))


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
