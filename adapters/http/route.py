"""What a route is, and the sets of errors that many of them share. The table of all routes is in ``routes.py``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from pydantic import BaseModel
from sanic import HTTPResponse

from manent.adapters.http.query import QueryParameter
from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_responses import ErrorAnswer
from manent.domain.access import Scope

Handler = Callable[..., Awaitable[HTTPResponse | None]]

PREFIXES = ("/v1", "/api/v1")
BODY_ERRORS = ("invalid_json", "invalid_type", "invalid_value", "missing_required_parameter", "unknown_parameter")
BODY_LIMITS = ("request_too_large", "unsupported_media_type", "request_timeout", "origin_not_allowed")
STORE_ERRORS = ("store_unavailable", "internal_error")
ACCESS_ERRORS = ("invalid_api_key", "permission_denied", "too_many_failed_logins", "store_unavailable")
SESSION_ERRORS = ("session_not_found", "session_closed", "session_expired", "session_busy")
ENGINE_ERRORS = (
    "generation_failed",
    "engine_busy",
    "model_load_failed",
    "insufficient_memory",
    "model_unavailable",
    "runner_crashed",
    "deadline_exceeded",
)
TEXT_ERRORS = (
    *BODY_ERRORS,
    "unsupported_parameter",
    *BODY_LIMITS,
    *STORE_ERRORS,
    "model_not_found",
    "wrong_model_type",
    "context_length_exceeded",
    "idempotency_conflict",
    "cancelled",
    "event_too_large",
    "too_many_streams",
    *ENGINE_ERRORS,
    "shutting_down",
)
CHAT_ERRORS = (*TEXT_ERRORS, *SESSION_ERRORS, "history_conflict", "precondition_failed")
RESUME_ERRORS = (
    "invalid_type",
    "invalid_value",
    "unknown_parameter",
    "completion_not_found",
    "content_not_recorded",
    "stream_expired",
    "cancelled",
    "interrupted",
    *STORE_ERRORS,
    *ENGINE_ERRORS,
)


REQUEST_HEADERS = {
    "X-Access-Purpose": "Why what is another's is read, at most 200 characters; it stands in the event of the reading.",
    "Idempotency-Key": "1 to 128 visible ASCII characters; a repetition with the same key has the same answer.",
    "If-Match": 'Entity tags of versions that the session may be at, as "3", or * for any; else 412.',
    "Last-Event-ID": "The id of the last event that the client has; what follows it is sent.",
    "If-None-Match": "Entity tags of versions that the client has; where the session is at one of them, 304.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path. ``path`` has Sanic's placeholders; ``under_v1`` puts it below each of ``PREFIXES``.

    ``other_types`` are the media types that an answer may have beside ``content_type``; ``files`` are those of a body
    that is a file and no object of the API. ``takes`` names the headers of ``REQUEST_HEADERS`` that mean something
    here; with ``etag`` an answer has one. ``scope`` is what a credential must have to come here at all; whose things it
    then sees is the domain's to decide. ``public`` routes ask for none; ``opened_by`` is the part of the API that
    settings may open. ``only_reads`` is a POST that changes nothing of what it is about, so that auditors may send it.
    """

    name: str
    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    answer: type[BaseModel] | None = None
    answer_503: type[BaseModel] | None = None
    status: int = 200
    content_type: str = "application/json"
    other_types: Sequence[str] = ()
    streams: type[BaseModel] | None = None
    error_answer: type[BaseModel] = ErrorAnswer
    body: type[Wire] | None = None
    body_required: bool = True
    files: Sequence[str] = ()
    query: Sequence[QueryParameter] = ()
    takes: Sequence[str] = ()
    etag: bool = False
    errors: Sequence[str] = ("internal_error",)
    under_v1: bool = True
    public: bool = False
    scope: Scope | None = None
    opened_by: str | None = None
    only_reads: bool = False
    alias: str | None = None

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.method == "GET" or self.only_reads

    def is_open(self, parts: Collection[str]) -> bool:
        """Whether no credential is asked for, where these parts of the API are public."""
        return self.public or (self.opened_by is not None and self.opened_by in parts)

    @property
    def paths(self) -> list[str]:
        """Where it is served."""
        if self.under_v1:
            return [f"{prefix}{self.path}" for prefix in PREFIXES]
        return [self.path] if self.alias is None else [self.path, self.alias]


def openapi_path(path: str) -> str:
    """A Sanic path as OpenAPI writes it: ``<id:str>`` becomes ``{id}``."""
    return re.sub(r"<(\w+):\w+>", r"{\1}", path)
