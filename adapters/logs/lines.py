"""A record as a line: JSON for whoever collects logs, or structlog's colors for whoever reads them on a terminal.

An exception is told by ``safe_traceback``: its message may hold somebody's words.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from manent.domain.safe_errors import safe_traceback

STANDARD = logging.LogRecord("", 0, "", 0, "", None, None).__dict__.keys() | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """One object a line: timestamp, level, logger, event, what a call gave as ``extra``, and the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a value that JSON does not know is shown as text."""
        return msgspec.json.encode(_members(record), enc_hook=str).decode()


def console_lines() -> logging.Formatter:
    """The same members, for a terminal."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_replaced],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.dev.ConsoleRenderer()],
    )


def _replaced(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record = event["_record"]
    kept = {name: event[name] for name in ("_record", "_from_structlog")}
    record.args, record.msg = None, event["event"]  # the message is made already
    return {**_members(record), **kept}


def _members(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": _event(record),
    }
    attributes = record.__dict__
    for name in sorted(attributes.keys() - STANDARD):
        found.setdefault(name, attributes[name])
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        found["exception"] = safe_traceback(error)
    return found


def _event(record: logging.LogRecord) -> str:
    """The message; Sanic's own have the text of exceptions in them, and so perhaps somebody's words."""
    if record.name.partition(".")[0] == "sanic":
        return "the web server could not answer as usual"
    return record.getMessage()
