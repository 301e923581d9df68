"""One line per request, and its measurement: method, path, status, duration, ids. Never a body, never a query."""

from __future__ import annotations

import logging
from time import time

from manent.adapters.http.request import HttpRequest

PATH_CHARS_MAX = 200
STREAM_DONE = "done"
SWITCHED = 101
CLOSES = {
    1002: "bad_request",
    1003: "invalid_type",
    1006: "client_disconnected",
    1007: "invalid_json",
    1008: "invalid_api_key",
    1009: "request_too_large",
    1011: "internal_error",
    4400: "invalid_value",
}
"""What the codes of RFC 6455, 7.4 that are no good end are in the table of errors."""

_log = logging.getLogger("manent.http")


def log_request(request: HttpRequest, status: int) -> None:
    """Log a request that is answered at once."""
    request.end(status, request.error_code)
    if _log.isEnabledFor(logging.INFO):
        _log.handle(RequestLine("%s %s %d", (request.method, shown_path(request), status), request))


def log_stream(request: HttpRequest, outcome: str) -> None:
    """Log a stream at its end; ``outcome`` is ``done`` or why it did not get that far."""
    request.end(200, None if outcome == STREAM_DONE else outcome)
    if _log.isEnabledFor(logging.INFO):
        _log.handle(RequestLine("%s %s 200 stream %s", (request.method, shown_path(request), outcome), request))


def log_socket(request: HttpRequest, close_code: int) -> None:
    """Log a WebSocket at its end; a code of the client's choosing is no error of a request."""
    request.end(SWITCHED, CLOSES.get(close_code))
    if _log.isEnabledFor(logging.INFO):
        told = request.method, shown_path(request), SWITCHED, close_code
        _log.handle(RequestLine("%s %s %d closed %d", told, request))


def shown_path(request: HttpRequest) -> str:
    """The path, cut and without anything that could forge a log line."""
    path = request.path[:PATH_CHARS_MAX]
    if path.isprintable():
        return path
    return "".join(char if char.isprintable() else "?" for char in path)


class RequestLine(logging.LogRecord):
    """The record of a request, with what a line of JSON has as members of its own.

    It is made in one step: the dozen functions by which logging makes one take as long as counting and tracing do.
    """

    def __init__(self, message: str, args: tuple[object, ...], request: HttpRequest) -> None:
        now_s = time()
        self.__dict__.update(
            _UNASKED,
            msg=message,
            args=args,
            created=now_s,
            msecs=now_s % 1 * 1000,
            request_id=request.request_id,
            duration_ms=round(request.elapsed_ms, 1),
        )
        if request.told_as is not None and request.told_as.correlation_id is not None:
            self.correlation_id = request.told_as.correlation_id


_UNASKED = logging.makeLogRecord({"name": _log.name, "levelno": logging.INFO, "levelname": "INFO"}).__dict__
"""What is the same in all of them, and what nobody asks for."""
