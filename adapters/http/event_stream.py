"""GET /v1/events/stream: the log as it is committed, as server-sent events that a reader can resume.

Each event is the object of the list, its ``id`` the position. A page is read from the store only when the client has
taken the one before, so that a tail holds no more than a page, however slow its reader.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import cast

import msgspec
from sanic import HTTPResponse

from manent.adapters.http.chat_stream import EVENT_STREAM_HEADERS
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused, error_body
from manent.adapters.http.events import FILTER_QUERY, POSITION_MAX, asked_filter, event_members
from manent.adapters.http.protocol import BoundedHttpProtocol
from manent.adapters.http.query import IntQuery, QueryParameter
from manent.adapters.http.request import HttpRequest
from manent.adapters.http.request_log import log_stream
from manent.domain.errors import DomainError, InternalError
from manent.domain.records import LogEntry
from manent.domain.usecases.follow_log import Tail

# One newline: openai-python, for one, takes a comment with a blank line behind it for an event once it has seen an id.
PING = b": ping\n"
DONE = b"event: done\ndata: [DONE]\n\n"
CHUNK_BYTES = 64 * 1024

EVENT_STREAM_QUERY: Sequence[QueryParameter] = (
    *FILTER_QUERY,
    IntQuery(
        name="after",
        says="only above this position; a Last-Event-ID header goes before it",
        minimum=0,
        maximum=POSITION_MAX,
        default=0,
    ),
)
LAST_EVENT_ID = re.compile(r"[0-9]{1,18}", re.ASCII)

_log = logging.getLogger("manent.http")


async def stream_events(exchange: Exchange) -> None:
    """Follow the log until the client leaves, falls behind, or has everything that its filter can match."""
    event_filter, after = asked_filter(exchange.query), _after(exchange)
    follow = exchange.services.follow
    async with follow.tail(exchange.principal, event_filter, after_position=after) as tail:
        writer = await _TailWriter.open(exchange)
        outcome = "client_disconnected"
        try:
            outcome = await _follow(tail, writer)
        finally:
            log_stream(exchange.request, outcome)


async def _follow(tail: Tail, writer: _TailWriter) -> str:
    """Send what ``tail`` yields and, last, why nothing follows; the name of that."""
    try:
        await writer.send(PING)
        while (page := await tail.next(writer.ping_interval_s)) is not None:
            for chunk in _chunks(page) if page else (PING,):
                await writer.send(chunk)
    except DomainError as error:
        await writer.end(_told(error))
        return error.code
    except Exception as error:  # noqa: BLE001  # the boundary: logged in full and told, since the headers are out
        _log.exception("a tail of the log ended in a defect")
        await writer.end(_told(InternalError(f"internal error ({type(error).__name__}) while following the log")))
        return InternalError.code
    await writer.end(DONE)
    return "done"


def _after(exchange: Exchange) -> int:
    """Where to go on: browsers send the header when they reconnect, to the address of the first time."""
    last_id = exchange.request.headers.get("last-event-id")
    if not last_id:
        after: int = exchange.query["after"]
        return after
    if not LAST_EVENT_ID.fullmatch(last_id):
        raise RequestRefused(
            "invalid_value", f"Last-Event-ID is {last_id[:80]!r}; it must be a position", param="Last-Event-ID"
        )
    return int(last_id)


def _chunks(page: Sequence[LogEntry]) -> Iterator[bytes]:
    chunk = bytearray()
    for entry in page:
        chunk += b"id: %d\ndata: %b\n\n" % (entry.header.position, msgspec.json.encode(event_members(entry)))
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def _told(error: DomainError) -> bytes:
    return b"event: error\ndata: " + error_body(error) + b"\n\n"


class _TailWriter:
    """The response of a tail."""

    def __init__(self, request: HttpRequest, response: HTTPResponse, exchange: Exchange) -> None:
        self._request = request
        self._response = response
        self._stall_timeout_s = exchange.limits.stall_timeout_s
        self.ping_interval_s = exchange.limits.ping_interval_s

    @classmethod
    async def open(cls, exchange: Exchange) -> _TailWriter:
        """Prepare the status line and headers; they go out with the first bytes."""
        exchange.request.is_stream = True
        response = await exchange.request.respond(
            status=200, headers=EVENT_STREAM_HEADERS, content_type="text/event-stream; charset=utf-8"
        )
        return cls(exchange.request, cast("HTTPResponse", response), exchange)

    async def send(self, data: bytes) -> None:
        """Send ``data``, once the client has read enough of what went before.

        Raises:
            RequestRefused: it did not, within the stall timeout.
        """
        if not await self._protocol.can_send(self._stall_timeout_s):
            raise RequestRefused(
                "slow_consumer",
                f"nothing was read for {self._stall_timeout_s:g} s; resume with the last id as Last-Event-ID",
            )
        await self._response.send(data)

    async def end(self, data: bytes) -> None:
        """Send the last words, also behind what is not read yet, and close the connection."""
        self._request.close_after_answer()
        self._protocol.part()
        await self._response.send(data, end_stream=True)

    @property
    def _protocol(self) -> BoundedHttpProtocol:
        return cast("BoundedHttpProtocol", self._request.protocol)
