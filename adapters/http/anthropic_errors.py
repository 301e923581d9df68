"""Errors as Anthropic's clients read them, and which requests are theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sanic import HTTPResponse, Request

from manent.adapters.http.answers import JSON_TYPE, bytes_answer
from manent.adapters.http.chat_stream import StreamWords
from manent.adapters.http.errors import AUTHENTICATION, INVALID_REQUEST, PERMISSION, RATE_LIMIT, error_headers, row_of
from manent.adapters.http.request import HttpRequest
from manent.adapters.http.route import PREFIXES
from manent.domain.errors import DomainError

MESSAGES, MODELS = "/messages", "/models"
VERSION = "anthropic-version"

# Statuses are those of the one table; here is what Anthropic calls them.
_TYPES: Mapping[int, str] = {
    401: AUTHENTICATION,
    403: PERMISSION,
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: RATE_LIMIT,
    503: "overloaded_error",
    504: "timeout_error",
}
SERVER_FAULT = 500
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def speaks_anthropic(request: Request) -> bool:
    """Whether a request is one of Anthropic's API: by its path, or for models by the header that its clients send."""
    if MESSAGES not in request.path and MODELS not in request.path:
        return False
    path = next((request.path[len(prefix) :] for prefix in PREFIXES if request.path.startswith(f"{prefix}/")), "")
    if _is_below(path, MESSAGES):
        return True
    return _is_below(path, MODELS) and VERSION in request.headers


def anthropic_error(error: DomainError, request_id: str) -> dict[str, Any]:
    """Anthropic's envelope; ``details`` has Manent's code of the error and the parameter at fault."""
    status = row_of(error).status
    kind = _TYPES.get(status, INVALID_REQUEST if status < SERVER_FAULT else "api_error")
    details = {"error_code": error.code, "param": error.param}
    return {
        "type": "error",
        "error": {"type": kind, "message": error.message, "details": details},
        "request_id": request_id,
    }


def anthropic_error_answer(error: DomainError, request: HttpRequest) -> HTTPResponse:
    """The response that tells ``error``."""
    body = msgspec.json.encode(anthropic_error(error, request.request_id))
    return bytes_answer(body, JSON_TYPE, status=row_of(error).status, headers=error_headers(error))


def anthropic_words(request: HttpRequest) -> StreamWords:
    """How a stream is kept alive, and how it tells an error."""
    return StreamWords(ping=PING, error=lambda error: named_event(anthropic_error(error, request.request_id)))


def named_event(members: Mapping[str, Any]) -> bytes:
    """An event of Anthropic's streams, named by its type."""
    name: str = members["type"]
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(members) + b"\n\n"


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")
