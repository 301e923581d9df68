"""Sessions over HTTP: start, look at, read, delete."""

from __future__ import annotations

from collections.abc import Sequence

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer
from manent.adapters.http.chat import session_headers
from manent.adapters.http.chat_command import read_session_request, session_command
from manent.adapters.http.context import Exchange
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.query import IntQuery, QueryParameter, TextQuery
from manent.adapters.http.wire_responses import (
    ContentPart,
    ForkOf,
    Session,
    SessionDeleted,
    SessionMessage,
    SessionMessageList,
)
from manent.domain.errors import SessionNotFound
from manent.domain.messages import Message
from manent.domain.session import SESSION_ID, SessionState

MESSAGES_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="after", says="the id of the message that the page begins behind"),
    IntQuery(name="limit", says="how many messages to return", minimum=1, maximum=100, default=20),
    TextQuery(name="order", says="asc is the order of the conversation", choices=("asc", "desc"), default="asc"),
)


async def create_session(exchange: Exchange) -> HTTPResponse:
    """Start a session; an empty body starts one with a new id and nothing in it."""
    asked = await read_body(
        exchange.request,
        lambda: read_session_request(
            json_object(exchange.request, may_be_empty=True), messages_max=exchange.limits.messages_max
        ),
    )
    state = await exchange.services.sessions.start(session_command(asked, exchange))
    return json_answer(_session(state), status=201, headers=session_headers(state.session_id))


async def retrieve_session(exchange: Exchange, session_id: str) -> HTTPResponse:
    """A session as it stands."""
    state = await exchange.services.sessions.get(exchange.principal, _possible(session_id))
    return json_answer(_session(state))


async def list_session_messages(exchange: Exchange, session_id: str) -> HTTPResponse:
    """A page of a session's messages."""
    page = await exchange.services.sessions.messages(
        exchange.principal,
        _possible(session_id),
        after=exchange.query["after"],
        limit=exchange.query["limit"],
        descending=exchange.query["order"] == "desc",
    )
    data = [_message(message) for message in page.messages]
    return json_answer(
        SessionMessageList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=page.has_more,
        )
    )


async def delete_session(exchange: Exchange, session_id: str) -> HTTPResponse:
    """Close a session for good; what was recorded stays in the log."""
    await exchange.services.sessions.delete(
        exchange.principal, _possible(session_id), request_id=exchange.request.request_id
    )
    return json_answer(SessionDeleted(id=session_id))


def _possible(session_id: str) -> str:
    """``session_id``, if any session could have it; nothing else ever reaches the store."""
    if not SESSION_ID.fullmatch(session_id):
        raise SessionNotFound(f"no session {session_id[:160]!r} was found")
    return session_id


def _session(state: SessionState) -> Session:
    parent = state.parent
    return Session(
        id=state.session_id,
        created_at=state.started_at_us // 1_000_000,
        updated_at=state.changed_at_us // 1_000_000,
        owner=state.owner,
        metadata=dict(state.metadata),
        ttl_s=state.ttl_s,
        parent=None if parent is None else ForkOf(session_id=parent.session_id, version=parent.version),
        version=state.version,
        message_count=len(state.messages),
    )


def _message(message: Message) -> SessionMessage:
    parts = None if len(message.content) == 1 else [ContentPart(text=part.text) for part in message.content]
    return SessionMessage(
        id=message.message_id,
        role=message.role.value,
        content=message.text,
        content_parts=parts,
        name=message.name,
    )
