"""GET /v1/events and /v1/events/{position}: the log, with all that a reader needs to recompute its hashes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sanic import HTTPResponse

from manent.adapters.http.answers import JSON_TYPE, bytes_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.query import IntQuery, QueryParameter, TextQuery, TimeQuery
from manent.domain.errors import EventNotFound
from manent.domain.events import session_stream
from manent.domain.records import EventFilter, EventHeader, LogEntry
from manent.domain.usecases.query_log import LIMIT_MAX

POSITION_MAX = 2**63 - 1
POSITION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

FILTER_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="stream", says="only this stream, as session-<id>", chars_max=300),
    TextQuery(name="session", says="only this session's stream", chars_max=256),
    TextQuery(name="type", says="only this type, as CompletionGenerated", chars_max=100),
    TextQuery(name="actor", says="only what this subject caused"),
    TextQuery(name="model", says="only events that name this model, by its id (an alias is not recorded)"),
    TextQuery(name="request_id", says="only what this request caused"),
    TextQuery(name="correlation_id", says="only what was sent with this correlation id"),
    TimeQuery(name="since", says="only what was recorded at this time or later"),
    TimeQuery(name="until", says="only what was recorded at this time or earlier"),
    IntQuery(name="min_position", says="only from this position on", minimum=1, maximum=POSITION_MAX),
    IntQuery(name="max_position", says="only up to this position", minimum=1, maximum=POSITION_MAX),
)

# Pages go by position and not by event_id: positions are gap-free and in commit order, so a reader that follows
# ``after`` never skips an event. They are strings in first_id and last_id, as OpenAI's lists have it.
EVENTS_QUERY: Sequence[QueryParameter] = (
    *FILTER_QUERY,
    IntQuery(name="after", says="last_id of the page before", minimum=0, maximum=POSITION_MAX, default=0),
    IntQuery(name="limit", says="how many events to return", minimum=1, maximum=LIMIT_MAX, default=100),
)


async def list_events(exchange: Exchange) -> HTTPResponse:
    """A page of the log, oldest first."""
    page = await exchange.services.log.page(
        exchange.principal,
        asked_filter(exchange.query),
        after_position=exchange.query["after"],
        limit=exchange.query["limit"],
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


async def retrieve_event(exchange: Exchange, position: str) -> HTTPResponse:
    """One event of the log."""
    if not POSITION.fullmatch(position):
        raise EventNotFound(f"{position[:80]!r} is no position of the log")
    entry = await exchange.services.log.event(exchange.principal, int(position))
    return bytes_answer(msgspec.json.encode(event_members(entry)), JSON_TYPE)


def asked_filter(query: Mapping[str, Any]) -> EventFilter:
    """The filter that the parameters of ``FILTER_QUERY`` ask for.

    Raises:
        RequestRefused: ``session`` and ``stream`` ask for two streams at once.
    """
    stream_id, session_id = query["stream"], query["session"]
    if session_id is not None:
        if stream_id is not None:
            raise RequestRefused(
                "invalid_value", "session and stream both name a stream; send one of them", param="session"
            )
        stream_id = session_stream(session_id)
    return EventFilter(
        stream_id=stream_id,
        type=query["type"],
        actor=query["actor"],
        model_id=query["model"],
        request_id=query["request_id"],
        correlation_id=query["correlation_id"],
        since_us=query["since"],
        until_us=query["until"],
        min_position=query["min_position"],
        max_position=query["max_position"],
    )


def event_members(entry: LogEntry) -> dict[str, Any]:
    """An event on the wire; the payload's bytes stand unchanged, so that its digest can be recomputed from them."""
    return wire_members(entry.header, entry.payload, entry.salt)


def wire_members(header: EventHeader | msgspec.Raw, payload: bytes | None, salt: bytes | None) -> dict[str, Any]:
    """``event_members`` of the parts of an entry, for msgspec, which writes bytes in base64 (RFC 4648)."""
    return {
        "object": "event",
        "header": header,
        "payload": None if payload is None else msgspec.Raw(payload),
        "salt": salt,
    }
