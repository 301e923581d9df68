"""One line per request: method, path, status, duration, request id. Never a body, never a query."""

from __future__ import annotations

import logging

from manent.adapters.http.request import HttpRequest

PATH_CHARS_MAX = 200

_log = logging.getLogger("manent.http")


def log_request(request: HttpRequest, status: int) -> None:
    """Log a request that is answered at once."""
    if not _log.isEnabledFor(logging.INFO):
        return
    _log.info(
        "%s %s %d %.1f ms %s", request.method, shown_path(request), status, request.elapsed_ms, request.request_id
    )


def log_stream(request: HttpRequest, outcome: str) -> None:
    """Log a stream at its end; ``outcome`` is ``done`` or why it did not get that far."""
    _log.info(
        "%s %s 200 %.1f ms %s stream %s",
        request.method,
        shown_path(request),
        request.elapsed_ms,
        request.request_id,
        outcome,
    )


def shown_path(request: HttpRequest) -> str:
    """The path, cut and without anything that could forge a log line."""
    path = request.path
    return "".join(char if char.isprintable() else "?" for char in path[:PATH_CHARS_MAX])
