"""The messages of a session over HTTP: add one without an answer, read one, read pages."""

from __future__ import annotations

from collections.abc import Sequence

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer, tool_calls_answer
from manent.adapters.http.chat_command import domain_messages
from manent.adapters.http.conditions import etag_headers, expected_version, not_modified
from manent.adapters.http.context import Exchange
from manent.adapters.http.idempotency import idempotency_key
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.message_parts import with_images
from manent.adapters.http.message_rules import check_message
from manent.adapters.http.parameters import honored_message
from manent.adapters.http.query import IntQuery, QueryParameter, TextQuery
from manent.adapters.http.replay_moment import AS_OF_QUERY, asked_moment
from manent.adapters.http.sessions import possible_id
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_requests import ChatMessage
from manent.adapters.http.wire_responses import ContentPart, ImageContent, SessionMessage, SessionMessageList
from manent.domain.messages import ImagePart, Message, TextPart
from manent.domain.usecases.session_messages import AddMessage, page_of

MESSAGES_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="after", says="the id of the message that the page begins behind"),
    IntQuery(name="limit", says="how many messages to return", minimum=1, maximum=100, default=20),
    TextQuery(name="order", says="asc is the order of the conversation", choices=("asc", "desc"), default="asc"),
    *AS_OF_QUERY,
)


async def create_session_message(exchange: Exchange, session_id: str) -> HTTPResponse:
    """Add a message to the end of a session; nothing is generated."""
    asked = await read_body(
        exchange.request, lambda: validated(ChatMessage, honored_message(json_object(exchange.request)))
    )
    check_message(asked)
    services = exchange.services
    (message,) = await with_images(domain_messages([asked], services.ids), [asked], services.images, param="")
    added = await exchange.services.session_messages.add(
        AddMessage(
            principal=exchange.principal,
            session_id=possible_id(session_id),
            message=message,
            expected=expected_version(exchange),
            request_id=exchange.request.request_id,
            idempotency=idempotency_key(exchange),
        )
    )
    return json_answer(message_answer(added.message), status=201, headers=etag_headers(added.version))


async def list_session_messages(exchange: Exchange, session_id: str) -> HTTPResponse:
    """A page of a session's messages, as they stand or as they stood."""
    query, session_id = exchange.query, possible_id(session_id)
    after, limit, descending = query["after"], query["limit"], query["order"] == "desc"
    if (moment := asked_moment(query)) is not None:
        state = await exchange.services.replays.recorded.replay.at(exchange.principal, session_id, moment)
        page = page_of(state, after=after, limit=limit, descending=descending)
    else:
        page = await exchange.services.session_messages.page(
            exchange.principal, session_id, after=after, limit=limit, descending=descending
        )
    known = not_modified(exchange, page.version)
    if known is not None:
        return known
    data = [message_answer(message) for message in page.messages]
    return json_answer(
        SessionMessageList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=page.has_more,
        ),
        headers=etag_headers(page.version),
    )


async def retrieve_session_message(exchange: Exchange, session_id: str, message_id: str) -> HTTPResponse:
    """A message of a session as it stands."""
    found = await exchange.services.session_messages.get(exchange.principal, possible_id(session_id), message_id)
    known = not_modified(exchange, found.version)
    return known or json_answer(message_answer(found.message), headers=etag_headers(found.version))


def message_answer(message: Message) -> SessionMessage:
    """A message on the wire."""
    several = len(message.content) > 1 or message.images
    parts = [_part(part) for part in message.parts] if several else None
    return SessionMessage(
        id=message.message_id,
        role=message.role.value,
        content=message.text,
        content_parts=parts,
        name=message.name,
        tool_calls=tool_calls_answer(message.tool_calls),
        tool_call_id=message.tool_call_id,
        reasoning_content=message.reasoning,
    )


def _part(part: TextPart | ImagePart) -> ContentPart | ImageContent:
    if isinstance(part, TextPart):
        return ContentPart(text=part.text)
    return ImageContent(
        digest=part.digest,
        media_type=part.media_type,
        width=part.width,
        height=part.height,
        size_bytes=len(part.data),
        detail=part.detail.value,
    )
