"""Conversations over HTTP: sessions through OpenAI's noun, and their messages as items."""

from __future__ import annotations

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer, session_headers
from manent.adapters.http.context import Exchange
from manent.adapters.http.idempotency import idempotency_key
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.parameter_table import honored_members
from manent.adapters.http.response_command import in_other_words
from manent.adapters.http.response_input import parts_of
from manent.adapters.http.response_items import item_answer, item_list
from manent.adapters.http.response_parameters import (
    CONVERSATION_PARAMETERS,
    CONVERSATION_UPDATE_PARAMETERS,
    ITEMS_PARAMETERS,
    honored_items,
)
from manent.adapters.http.sessions import possible_id
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_response_answers import Conversation, ConversationDeleted, ConversationItem
from manent.adapters.http.wire_response_requests import ConversationRequest, ConversationUpdate, ItemsRequest
from manent.domain.session import SessionState
from manent.domain.session_upkeep import SessionChange
from manent.domain.usecases.conversation_items import ItemPage
from manent.domain.usecases.manage_sessions import ChangeSession, StartSession

NAMES = {"session_id": "conversation_id", "messages": "items"}
"""What the domain calls after sessions, and conversations call otherwise."""


@in_other_words(NAMES)
async def create_conversation(exchange: Exchange) -> HTTPResponse:
    """Start a conversation; an empty body starts one with nothing in it."""
    asked = await read_body(
        exchange.request,
        lambda: validated(
            ConversationRequest,
            honored_items(json_object(exchange.request, may_be_empty=True), CONVERSATION_PARAMETERS),
        ),
    )
    services = exchange.services
    parts = await parts_of(asked.items, path="items", ids=services.ids, images=services.images)
    state = await services.sessions.start(
        StartSession(
            principal=exchange.principal,
            session_id=services.ids.new("conv_"),
            metadata=asked.metadata,
            messages=await services.responses.resolve.run(exchange.principal, parts, ()),
            request_id=exchange.request.request_id,
            idempotency=idempotency_key(exchange),
        )
    )
    return _answer(state)


@in_other_words(NAMES)
async def retrieve_conversation(exchange: Exchange, conversation_id: str) -> HTTPResponse:
    """A conversation as it stands."""
    return _answer(await exchange.services.sessions.get(exchange.principal, possible_id(conversation_id)))


@in_other_words(NAMES)
async def update_conversation(exchange: Exchange, conversation_id: str) -> HTTPResponse:
    """Change a conversation's metadata."""
    asked = validated(
        ConversationUpdate, honored_members(json_object(exchange.request), CONVERSATION_UPDATE_PARAMETERS)
    )
    state = await exchange.services.sessions.change(
        ChangeSession(
            principal=exchange.principal,
            session_id=possible_id(conversation_id),
            change=SessionChange(metadata=asked.metadata or {}),
            request_id=exchange.request.request_id,
            idempotency=idempotency_key(exchange),
        )
    )
    return _answer(state)


@in_other_words(NAMES)
async def delete_conversation(exchange: Exchange, conversation_id: str) -> HTTPResponse:
    """Close a conversation for good; what was recorded stays in the log."""
    await exchange.services.sessions.delete(
        exchange.principal, possible_id(conversation_id), request_id=exchange.request.request_id
    )
    return json_answer(ConversationDeleted(id=conversation_id))


@in_other_words(NAMES)
async def list_conversation_items(exchange: Exchange, conversation_id: str) -> HTTPResponse:
    """A page of a conversation's items."""
    query = exchange.query
    page = await exchange.services.responses.items.page(
        exchange.principal,
        possible_id(conversation_id),
        after=query["after"],
        limit=query["limit"],
        descending=query["order"] == "desc",
    )
    return json_answer(item_list(page, query["include"]))


@in_other_words(NAMES)
async def create_conversation_items(exchange: Exchange, conversation_id: str) -> HTTPResponse:
    """Add items to the end of a conversation; nothing is generated."""
    asked = await read_body(
        exchange.request,
        lambda: validated(ItemsRequest, honored_items(json_object(exchange.request), ITEMS_PARAMETERS)),
    )
    services = exchange.services
    parts = await parts_of(asked.items, path="items", ids=services.ids, images=services.images)
    added = await services.responses.items.add(
        exchange.principal, possible_id(conversation_id), parts, request_id=exchange.request.request_id
    )
    return json_answer(item_list(ItemPage(items=added, has_more=False), exchange.query["include"]))


@in_other_words(NAMES)
async def retrieve_conversation_item(exchange: Exchange, conversation_id: str, item_id: str) -> HTTPResponse:
    """An item of a conversation as it stands."""
    item = await exchange.services.responses.items.get(exchange.principal, possible_id(conversation_id), item_id)
    return json_answer(ConversationItem.model_validate(item_answer(item, exchange.query["include"])))


@in_other_words(NAMES)
async def delete_conversation_item(exchange: Exchange, conversation_id: str, item_id: str) -> HTTPResponse:
    """Remove an item from a conversation; the conversation is the answer, as in OpenAI's API."""
    services, conversation_id = exchange.services, possible_id(conversation_id)
    request_id = exchange.request.request_id
    await services.responses.items.remove(exchange.principal, conversation_id, item_id, request_id=request_id)
    return _answer(await services.sessions.get(exchange.principal, conversation_id))


def _answer(state: SessionState) -> HTTPResponse:
    told = Conversation(id=state.session_id, created_at=state.started_at_us // 1_000_000, metadata=dict(state.metadata))
    return json_answer(told, headers=session_headers(state.session_id))
