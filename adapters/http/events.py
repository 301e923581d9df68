"""GET /v1/events: the log, page by page, with everything that a reader needs to recompute its hashes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
from sanic import HTTPResponse

from manent.adapters.http.answers import JSON_TYPE, bytes_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.query import IntQuery, QueryParameter, TextQuery
from manent.domain.ports import EventFilter, LogEntry
from manent.domain.usecases.query_log import LIMIT_MAX

POSITION_MAX = 2**63 - 1

# Pages go by position and not by event_id: positions are gap-free and in commit order, so a reader that follows
# ``after`` never skips an event. They are strings in first_id and last_id, as OpenAI's lists have it.
EVENTS_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="stream", says="only this stream, as session-<id>", chars_max=300),
    TextQuery(name="type", says="only this type, as CompletionGenerated", chars_max=100),
    IntQuery(name="min_position", says="only from this position on", minimum=1, maximum=POSITION_MAX),
    IntQuery(name="max_position", says="only up to this position", minimum=1, maximum=POSITION_MAX),
    IntQuery(name="after", says="last_id of the page before", minimum=0, maximum=POSITION_MAX, default=0),
    IntQuery(name="limit", says="how many events to return", minimum=1, maximum=LIMIT_MAX, default=100),
)


async def list_events(exchange: Exchange) -> HTTPResponse:
    """A page of the log, oldest first."""
    query = exchange.query
    page = await exchange.services.log.page(
        exchange.principal,
        EventFilter(
            stream_id=query["stream"],
            type=query["type"],
            min_position=query["min_position"],
            max_position=query["max_position"],
        ),
        after_position=query["after"],
        limit=query["limit"],
    )
    positions = [entry.header.position for entry in page.events]
    body = {
        "object": "list",
        "data": [event_members(entry) for entry in page.events],
        "first_id": str(positions[0]) if positions else None,
        "last_id": str(positions[-1]) if positions else None,
        "has_more": page.has_more,
    }
    return bytes_answer(msgspec.json.encode(body), JSON_TYPE)


def event_members(entry: LogEntry) -> dict[str, Any]:
    """An event on the wire; the payload's bytes stand unchanged, so that its digest can be recomputed from them."""
    return {
        "object": "event",
        "header": entry.header,
        "payload": None if entry.payload is None else msgspec.Raw(entry.payload),
        "salt": None if entry.salt is None else base64.b64encode(entry.salt).decode("ascii"),
    }
