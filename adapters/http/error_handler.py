"""Whatever goes wrong in Sanic or in a handler, as OpenAI's envelope, or Anthropic's: never HTML or a traceback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sanic import HTTPResponse, Request
from sanic.exceptions import (
    BadRequest,
    ExpectationFailed,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    SanicException,
    ServiceUnavailable,
    URITooLong,
)
from sanic.handlers import ErrorHandler

from manent.adapters.http.allowed import AllowedMethods
from manent.adapters.http.answers import error_answer
from manent.adapters.http.anthropic_errors import anthropic_error_answer, speaks_anthropic
from manent.adapters.http.errors import RequestRefused, row_of
from manent.adapters.http.not_offered import refusal_of
from manent.adapters.http.request import HttpRequest
from manent.adapters.http.request_log import shown_path
from manent.domain.errors import DomainError, InternalError

# Sanic's name for the method of a request that it could not read.
UNREAD_METHOD = "NONE"
SERVER_FAULT = 500

SANIC_ERRORS: Sequence[tuple[type[SanicException], str, str]] = (
    (PayloadTooLarge, "request_too_large", "the request's body is over the limit"),
    (URITooLong, "uri_too_long", "the request's address is over the limit"),
    (ExpectationFailed, "expectation_failed", "the only expectation known is 'Expect: 100-continue'"),
    (RequestTimeout, "request_timeout", "the request did not arrive in time"),
    (ServiceUnavailable, "not_ready", "the request was not answered in time"),
    (BadRequest, "bad_request", "the request could not be read as HTTP/1.1"),
)

_log = logging.getLogger("manent.http")


class JsonErrorHandler(ErrorHandler):
    """Answers every exception from the one table."""

    def __init__(self, allowed: AllowedMethods) -> None:
        super().__init__()
        self._allowed = allowed

    def response(self, request: Request, exception: BaseException) -> HTTPResponse:
        """The answer to a request that ended in ``exception``."""
        error = self._with_methods(request, as_domain_error(request, exception))
        if isinstance(request, HttpRequest):
            request.error_code = error.code
        self._log_fault(request, error, exception)
        if isinstance(request, HttpRequest) and speaks_anthropic(request):
            return anthropic_error_answer(error, request)
        return error_answer(error)

    def _with_methods(self, request: Request, error: DomainError) -> DomainError:
        if not isinstance(error, RequestRefused) or error.code != "method_not_allowed":
            return error
        allowed = ", ".join(self._allowed.of(request.path))
        words = f"{request.method} is not allowed for {request.path[:200]}; use {allowed or 'another method'}"
        return RequestRefused(error.code, words, headers={"allow": allowed})

    def _log_fault(self, request: Request, error: DomainError, exception: BaseException) -> None:
        request_id = request.request_id if isinstance(request, HttpRequest) else "-"
        path = shown_path(request) if isinstance(request, HttpRequest) else "-"
        if error is not exception and isinstance(error, InternalError):
            _log.error("%s %s ended in a defect, request %s", request.method, path, request_id, exc_info=exception)
        elif row_of(error).status >= SERVER_FAULT:
            _log.warning("%s %s ended in %s, request %s", request.method, path, error.code, request_id)


def as_domain_error(request: Request, exception: BaseException) -> DomainError:
    """``exception`` in the words of the error table."""
    if isinstance(exception, DomainError):
        return exception
    if isinstance(exception, asyncio.CancelledError):
        return RequestRefused("client_disconnected", "the client closed the connection")
    if isinstance(exception, SanicException):
        told = _sanic_error(request, exception)
        if told is not None:
            return told
    request_id = request.request_id if isinstance(request, HttpRequest) else "unknown"
    return InternalError(f"internal error; the server's log has the details under request id {request_id}")


def _sanic_error(request: Request, exception: SanicException) -> DomainError | None:
    if isinstance(exception, NotFound):
        return refusal_of(request.path) or RequestRefused(
            "unknown_url", f"Invalid URL ({request.method} {request.path[:200]})"
        )
    if isinstance(exception, MethodNotAllowed):
        return RequestRefused("method_not_allowed", "the address knows other methods only")
    if isinstance(exception, PayloadTooLarge) and request.method == UNREAD_METHOD:
        return RequestRefused("headers_too_large", "the request's header section is over the limit")
    for kind, code, message in SANIC_ERRORS:
        if isinstance(exception, kind):
            return RequestRefused(code, message)
    return None
