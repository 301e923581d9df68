"""POST /v1/sessions/import: a conversation from a file, as a new session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer, session_headers
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.idempotency import idempotency_key
from manent.adapters.http.import_messages import read_messages_file
from manent.adapters.http.json_body import check_content_type
from manent.adapters.http.query import QueryParameter, TextQuery
from manent.adapters.http.sessions import session_answer
from manent.domain.errors import ImportRefused
from manent.domain.images import ImageReader
from manent.domain.ports import Ids
from manent.domain.usecases.import_session import ImportCommand, SessionFile
from manent.domain.usecases.replays import ReadEventsFile

FORMATS = ("events", "messages")
FILE_TYPES = ("application/x-ndjson", "application/jsonl", "application/json")
FIRST_LINE_BYTES = 4096

IMPORT_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="format", says="without it, the file's first line tells", choices=FORMATS),
    TextQuery(name="session_id", says="the session's id; without one it is given", chars_max=128),
)


async def import_session(exchange: Exchange) -> HTTPResponse:
    """Import a file; all of it becomes the session, or nothing of it."""
    _check_file_type(exchange)
    data, services = exchange.request.body, exchange.services
    # In a thread: a file is hashed, decoded and checked line by line, and may be as large as a body.
    file = await asyncio.to_thread(
        read_session_file,
        data,
        exchange.query["format"],
        services.replays.recorded.read_events_file,
        services.ids,
        services.images,
    )
    state = await exchange.services.replays.recorded.imports.run(
        ImportCommand(
            principal=exchange.principal,
            file=file,
            session_id=exchange.query["session_id"],
            request_id=exchange.request.request_id,
            idempotency=idempotency_key(exchange),
        )
    )
    return json_answer(session_answer(state), status=201, headers=session_headers(state.session_id))


def read_session_file(
    data: bytes, file_format: str | None, read_events: ReadEventsFile, ids: Ids, images: ImageReader
) -> SessionFile:
    """The conversation in a file of either format; without one, its first line tells.

    Raises:
        ImportRefused: it cannot be read.
    """
    if not data.strip():
        raise ImportRefused("the file is empty")
    kind = file_format or _format_of(data)
    return read_events(data, ids) if kind == "events" else read_messages_file(data, ids, images)


def _format_of(data: bytes) -> str:
    """Files of events begin with an event; a line too long to look at whole is told by its first bytes."""
    first = data.split(b"\n", 1)[0]
    if first.startswith(b'{"object":"event"'):
        return "events"
    if len(first) > FIRST_LINE_BYTES:
        return "messages"
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return "messages"
    return "events" if isinstance(value, dict) and value.get("object") == "event" else "messages"


def _check_file_type(exchange: Exchange) -> None:
    """Refuse what a page in a browser could send unasked, as for JSON."""
    headers = exchange.request.headers
    given = headers.get("content-type") or ""
    if given.partition(";")[0].strip().lower() in FILE_TYPES[:2]:
        given = given.replace(given.partition(";")[0], FILE_TYPES[2], 1)
    try:
        check_content_type(given, headers.get("content-encoding"))
    except RequestRefused:
        raise RequestRefused(
            "unsupported_media_type",
            f"content-type is {headers.get('content-type')!r}; send one of {', '.join(FILE_TYPES)}, in UTF-8",
        ) from None
