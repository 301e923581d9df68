"""The one table from error codes to HTTP: status, OpenAI's ``type``, and what a client should do about retrying."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from manent.domain.errors import DomainError

INVALID_REQUEST = "invalid_request_error"
CONFLICT = "conflict_error"
PERMISSION = "permission_error"
AUTHENTICATION = "authentication_error"
RATE_LIMIT = "rate_limit_error"
UNAUTHORIZED = 401
SERVER = "server_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """How a code is told: ``why`` becomes the documentation of the code."""

    status: int
    type: str
    why: str


# OpenAI's SDKs retry 408, 409, 429 and everything from 500 on, whatever the body says. A conflict does not go away by
# asking again, so each 409 is sent with ``x-should-retry: false``. So is a 504: it would be too late again.
ERRORS: Mapping[str, ErrorRow] = {
    # What a request says.
    "invalid_json": ErrorRow(status=400, type=INVALID_REQUEST, why="The body is not a JSON object."),
    "invalid_type": ErrorRow(status=400, type=INVALID_REQUEST, why="A value has the wrong JSON type."),
    "invalid_value": ErrorRow(status=400, type=INVALID_REQUEST, why="A value is out of its range or set."),
    "missing_required_parameter": ErrorRow(status=400, type=INVALID_REQUEST, why="A parameter is missing."),
    "unknown_parameter": ErrorRow(status=400, type=INVALID_REQUEST, why="No parameter has this name."),
    "unsupported_parameter": ErrorRow(status=400, type=INVALID_REQUEST, why="Manent cannot do what it asks for."),
    "context_length_exceeded": ErrorRow(status=400, type=INVALID_REQUEST, why="It does not fit the context window."),
    "wrong_model_type": ErrorRow(status=400, type=INVALID_REQUEST, why="The model is for something else."),
    "import_refused": ErrorRow(status=400, type=INVALID_REQUEST, why="A file to import is not what it should be."),
    # What a connection says.
    "bad_request": ErrorRow(status=400, type=INVALID_REQUEST, why="The request is not valid HTTP/1.1."),
    "unknown_url": ErrorRow(status=404, type=INVALID_REQUEST, why="Nothing is served at this address."),
    "unsupported_endpoint": ErrorRow(status=404, type=INVALID_REQUEST, why="OpenAI has this, and Manent does not."),
    "method_not_allowed": ErrorRow(status=405, type=INVALID_REQUEST, why="The address knows other methods only."),
    "request_timeout": ErrorRow(status=408, type=INVALID_REQUEST, why="The request did not arrive in time."),
    "request_too_large": ErrorRow(status=413, type=INVALID_REQUEST, why="The body is over the limit."),
    "uri_too_long": ErrorRow(status=414, type=INVALID_REQUEST, why="The address is over the limit."),
    "upgrade_required": ErrorRow(status=426, type=INVALID_REQUEST, why="A WebSocket is spoken at this address."),
    "unsupported_media_type": ErrorRow(status=415, type=INVALID_REQUEST, why="The body is not declared as JSON."),
    "expectation_failed": ErrorRow(status=417, type=INVALID_REQUEST, why="Only 'Expect: 100-continue' is known."),
    "headers_too_large": ErrorRow(status=431, type=INVALID_REQUEST, why="The header section is over the limit."),
    "client_disconnected": ErrorRow(status=499, type=INVALID_REQUEST, why="Only logged: nobody is left to read it."),
    "unknown_host": ErrorRow(status=421, type=INVALID_REQUEST, why="The server does not answer to this Host."),
    # Who asks.
    "invalid_api_key": ErrorRow(status=UNAUTHORIZED, type=AUTHENTICATION, why="No API key or token that holds."),
    "too_many_failed_logins": ErrorRow(status=429, type=RATE_LIMIT, why="Too many credentials that do not hold."),
    "key_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="The tenant has no such key."),
    "key_revoked": ErrorRow(status=409, type=CONFLICT, why="The key was revoked before."),
    "origin_not_allowed": ErrorRow(status=403, type=PERMISSION, why="A web page of another origin asks."),
    "too_many_websockets": ErrorRow(status=503, type=SERVER, why="As many WebSockets are open as may be."),
    "too_many_streams": ErrorRow(status=503, type=SERVER, why="As many completions are streamed as may be."),
    # What the domain says.
    "rate_limit_exceeded": ErrorRow(status=429, type=RATE_LIMIT, why="A limit is reached; the message names it."),
    "permission_denied": ErrorRow(status=403, type=PERMISSION, why="The credential lacks a scope."),
    "refused_by_middleware": ErrorRow(status=403, type=PERMISSION, why="A plugin of this server refuses it."),
    "model_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="The registry has no such model."),
    "session_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="No such session, or somebody else's."),
    # A deleted session is as absent for its client as one that never was; the code alone tells them apart.
    "session_closed": ErrorRow(status=404, type=INVALID_REQUEST, why="The session was deleted."),
    "completion_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="No such completion, or somebody else's."),
    "completion_running": ErrorRow(status=409, type=CONFLICT, why="The completion has not ended yet."),
    "response_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="No such response, or somebody else's."),
    "previous_response_not_found": ErrorRow(status=400, type=INVALID_REQUEST, why="No such response to go on from."),
    "item_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="The conversation has no such item."),
    "runs_elsewhere": ErrorRow(status=409, type=CONFLICT, why="Another server generates the response."),
    "rerun_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="The session is no rerun."),
    "event_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="The log has no such position."),
    "webhook_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="The tenant has no such webhook."),
    "dead_letter_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="The webhook has no such dead letter."),
    "file_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="No such file, or somebody else's."),
    "batch_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="No such batch, or somebody else's."),
    "message_not_found": ErrorRow(status=404, type=INVALID_REQUEST, why="The session has no such message."),
    "session_expired": ErrorRow(status=410, type=INVALID_REQUEST, why="Nobody used the session for its ttl_s."),
    "stream_expired": ErrorRow(status=410, type=INVALID_REQUEST, why="What followed that event is not kept any more."),
    "precondition_failed": ErrorRow(status=412, type=INVALID_REQUEST, why="If-Match names another version."),
    "session_already_exists": ErrorRow(status=409, type=CONFLICT, why="The session id is taken."),
    "batch_ended": ErrorRow(status=409, type=CONFLICT, why="The batch is over; nothing is left to cancel."),
    "too_many_files": ErrorRow(status=409, type=CONFLICT, why="As many files or bytes are kept as may be."),
    "too_many_batches": ErrorRow(status=409, type=CONFLICT, why="As many batches have not ended as may be."),
    "model_in_use": ErrorRow(status=409, type=CONFLICT, why="Requests use the model or wait for it."),
    "session_busy": ErrorRow(status=409, type=CONFLICT, why="Another completion of the session is open."),
    "history_conflict": ErrorRow(status=409, type=CONFLICT, why="A strict session has another history."),
    "content_not_recorded": ErrorRow(status=409, type=CONFLICT, why="Only metadata is recorded, or it was erased."),
    "version_conflict": ErrorRow(status=409, type=CONFLICT, why="The stream moved on meanwhile."),
    "idempotency_conflict": ErrorRow(status=409, type=CONFLICT, why="The key was used with another request."),
    "lease_lost": ErrorRow(status=409, type=CONFLICT, why="Another worker took the subscription over."),
    # Somebody else stopped it on purpose (its session was deleted, say): a conflict of two requests. A stop because of
    # a shutdown is told as ``shutting_down`` instead, which is worth a retry.
    "cancelled": ErrorRow(status=409, type=CONFLICT, why="The completion was cancelled by another request."),
    "file_too_large": ErrorRow(status=413, type=INVALID_REQUEST, why="A file is over the limit of one."),
    "event_too_large": ErrorRow(status=413, type=INVALID_REQUEST, why="One event is over the log's limit."),
    "generation_failed": ErrorRow(status=500, type=SERVER, why="The engine could not evaluate the request."),
    "checkpoint_refused": ErrorRow(status=500, type=SERVER, why="The log does not continue what was signed before."),
    "webhook_key_unusable": ErrorRow(status=500, type=SERVER, why="The key of webhooks' secrets cannot be read."),
    "delivery_failed": ErrorRow(status=502, type=SERVER, why="The receiver of a webhook did not take the message."),
    "signing_key_unusable": ErrorRow(status=500, type=SERVER, why="The log's key cannot be read, or written beside."),
    "log_corrupt": ErrorRow(status=500, type=SERVER, why="The log holds bytes that do not decode."),
    "internal_error": ErrorRow(status=500, type=SERVER, why="A defect; the server's log has the details."),
    "engine_busy": ErrorRow(status=503, type=SERVER, why="Too many requests wait for the model."),
    "model_load_failed": ErrorRow(status=503, type=SERVER, why="The model could not be loaded."),
    "insufficient_memory": ErrorRow(status=503, type=SERVER, why="The model does not fit in memory now."),
    "model_unavailable": ErrorRow(status=503, type=SERVER, why="The model crashed repeatedly, or hangs."),
    "runner_crashed": ErrorRow(status=503, type=SERVER, why="The model's runner ended before the request did."),
    "interrupted": ErrorRow(status=503, type=SERVER, why="The server ended before the completion did."),
    "too_many_reruns": ErrorRow(status=503, type=SERVER, why="Too many reruns run or wait."),
    "too_many_tails": ErrorRow(status=503, type=SERVER, why="Too many readers follow the log."),
    "slow_consumer": ErrorRow(status=503, type=SERVER, why="The reader of a tail did not keep up; it can resume."),
    "shutting_down": ErrorRow(status=503, type=SERVER, why="The server drains."),
    "store_unavailable": ErrorRow(status=503, type=SERVER, why="The event store could not commit."),
    "deadline_exceeded": ErrorRow(status=504, type=SERVER, why="The completion took longer than it was allowed to."),
    "not_ready": ErrorRow(status=503, type=SERVER, why="A part of the server does not answer."),
}


class RequestRefused(DomainError):
    """A request that never reached the domain, or a word of the wire that the domain does not know."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self.code = code
        self.headers = dict(headers or {})


def row_of(error: DomainError) -> ErrorRow:
    """The row of ``error``; an unknown code is a defect and told as one."""
    return ERRORS.get(error.code, ERRORS["internal_error"])


def error_body(error: DomainError) -> bytes:
    """OpenAI's envelope: ``{"error": {"message", "type", "param", "code"}}``."""
    return msgspec.json.encode(
        {
            "error": {
                "message": error.message,
                "type": row_of(error).type,
                "param": error.param,
                "code": error.code,
            }
        }
    )


def error_headers(error: DomainError) -> dict[str, str]:
    """Headers that go with the status: when to retry, and whether to."""
    headers = dict(error.headers) if isinstance(error, RequestRefused) else {}
    if row_of(error).status in {ERRORS["session_busy"].status, ERRORS["deadline_exceeded"].status}:
        headers["x-should-retry"] = "false"
    if row_of(error).status == UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"  # RFC 6750, 3
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    return headers
