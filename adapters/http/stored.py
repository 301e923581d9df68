"""Stored chat completions: pages of them, one of them, its messages, its metadata, its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sanic import HTTPResponse

from manent.adapters.http.answers import members_answer, tool_calls_answer
from manent.adapters.http.completion_members import completion_members, recorded_choices
from manent.adapters.http.context import Exchange
from manent.adapters.http.idempotency import idempotency_key
from manent.adapters.http.json_body import json_object
from manent.adapters.http.parameter_table import honored_members
from manent.adapters.http.parameters import STORED_PARAMETERS
from manent.adapters.http.query import IntQuery, PairsQuery, QueryParameter, TextQuery
from manent.adapters.http.replay_context import possible_completion
from manent.adapters.http.route import BODY_ERRORS, BODY_LIMITS, STORE_ERRORS, Route
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_stored import (
    StoredChatCompletion,
    StoredCompletionDeleted,
    StoredCompletionList,
    StoredCompletionUpdate,
    StoredMessageList,
)
from manent.domain.access import Scope
from manent.domain.errors import ModelNotFound
from manent.domain.messages import ImagePart, Message, TextPart
from manent.domain.usecases.stored_completions import Stored, StoredQuery

PAGE_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="after", says="last_id of the page before"),
    IntQuery(name="limit", says="how many to return", minimum=1, maximum=100, default=20),
    TextQuery(name="order", says="asc begins with the oldest", choices=("asc", "desc"), default="asc"),
)
STORED_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="model", says="only of this model, by id or alias"),
    PairsQuery(name="metadata", says="only with this value, as metadata[key]=value; several must all match"),
    *PAGE_QUERY,
)


async def list_stored(exchange: Exchange) -> HTTPResponse:
    """A page of one's own, the oldest first unless asked otherwise."""
    query = exchange.query
    page = await exchange.services.stored.page(
        exchange.principal,
        StoredQuery(
            model=_model_id(exchange, query["model"]),
            metadata=query["metadata"],
            after=query["after"],
            limit=query["limit"],
            descending=query["order"] == "desc",
        ),
    )
    return members_answer(page_members([_members(stored) for stored in page.completions], has_more=page.has_more))


async def retrieve_stored(exchange: Exchange, completion_id: str) -> HTTPResponse:
    """One of them."""
    stored = await exchange.services.stored.get(exchange.principal, possible_completion(completion_id))
    return members_answer(_members(stored))


async def update_stored(exchange: Exchange, completion_id: str) -> HTTPResponse:
    """Replace its metadata."""
    asked = validated(StoredCompletionUpdate, honored_members(json_object(exchange.request), STORED_PARAMETERS))
    stored = await exchange.services.stored.change(
        exchange.principal,
        possible_completion(completion_id),
        asked.metadata or {},
        request_id=exchange.request.request_id,
        idempotency=idempotency_key(exchange),
    )
    return members_answer(_members(stored))


async def delete_stored(exchange: Exchange, completion_id: str) -> HTTPResponse:
    """Show it no more; what was recorded stays in the log."""
    await exchange.services.stored.delete(
        exchange.principal, possible_completion(completion_id), request_id=exchange.request.request_id
    )
    return members_answer({"id": completion_id, "object": "chat.completion.deleted", "deleted": True})


async def list_stored_messages(exchange: Exchange, completion_id: str) -> HTTPResponse:
    """A page of the messages that it answered."""
    query = exchange.query
    page = await exchange.services.stored.messages(
        exchange.principal,
        possible_completion(completion_id),
        after=query["after"],
        limit=query["limit"],
        descending=query["order"] == "desc",
    )
    return members_answer(page_members([_message(message) for message in page.messages], has_more=page.has_more))


def page_members(data: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page of a list, as OpenAI's clients follow it."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def _model_id(exchange: Exchange, asked: str | None) -> str | None:
    """The registry's id of an alias; a name that it does not know may be that of a model it once had."""
    if asked is None:
        return None
    try:
        return exchange.services.engine.resolve(asked).model_id
    except ModelNotFound:
        return asked


def _members(stored: Stored) -> dict[str, Any]:
    members = completion_members(stored.requested, stored.generated, recorded_choices(stored.generated))
    return {**members, "metadata": dict(stored.metadata)}


def _message(message: Message) -> dict[str, Any]:
    parts = [_part(part) for part in message.parts] if len(message.content) > 1 or message.images else None
    calls = tool_calls_answer(message.tool_calls)
    return {
        "id": message.message_id,
        "role": message.role.value,
        "content": message.text or (None if calls else ""),
        "refusal": None,
        "content_parts": parts,
        "name": message.name,
        **({} if calls is None else {"tool_calls": calls}),
        **({} if message.tool_call_id is None else {"tool_call_id": message.tool_call_id}),
    }


def _part(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": part.digest, "detail": part.detail.value}}


_READING = ("unknown_parameter", "invalid_type", "invalid_value", "log_corrupt", *STORE_ERRORS)
_ONE = (*_READING, "completion_not_found", "completion_running")
_COMPLETION = "/chat/completions/<completion_id:str>"

STORED_ROUTES: Sequence[Route] = (
    Route(
        name="listChatCompletions",
        method="GET",
        path="/chat/completions",
        handler=list_stored,
        summary="List stored chat completions",
        tag="Chat",
        answer=StoredCompletionList,
        query=STORED_QUERY,
        errors=_READING,
        scope=Scope.CHAT,
    ),
    Route(
        name="retrieveChatCompletion",
        method="GET",
        path=_COMPLETION,
        handler=retrieve_stored,
        summary="Retrieve a stored chat completion",
        tag="Chat",
        answer=StoredChatCompletion,
        errors=_ONE,
        scope=Scope.CHAT,
    ),
    Route(
        name="updateChatCompletion",
        method="POST",
        path=_COMPLETION,
        handler=update_stored,
        summary="Replace the metadata of a stored chat completion",
        tag="Chat",
        body=StoredCompletionUpdate,
        answer=StoredChatCompletion,
        takes=("Idempotency-Key",),
        errors=(*BODY_ERRORS, *BODY_LIMITS, *_ONE, "idempotency_conflict"),
        scope=Scope.CHAT,
    ),
    Route(
        name="deleteChatCompletion",
        method="DELETE",
        path=_COMPLETION,
        handler=delete_stored,
        summary="Have a stored chat completion shown no more; the log keeps it",
        tag="Chat",
        answer=StoredCompletionDeleted,
        errors=_ONE,
        scope=Scope.CHAT,
    ),
    Route(
        name="listChatCompletionMessages",
        method="GET",
        path=f"{_COMPLETION}/messages",
        handler=list_stored_messages,
        summary="List the messages that a stored chat completion answered",
        tag="Chat",
        answer=StoredMessageList,
        query=PAGE_QUERY,
        errors=(*_ONE, "content_not_recorded"),
        scope=Scope.CHAT,
    ),
)
