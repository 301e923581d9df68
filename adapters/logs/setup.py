"""Standard logging, rendered by structlog and written to standard error by a thread that nobody waits for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from manent.adapters.logs.writer import BackgroundHandler
from manent.domain.safe_errors import safe_traceback

OTHERS = ("sanic", "sanic.root", "sanic.error", "sanic.access", "sanic.server")

_handler: BackgroundHandler | None = None


def configure_logging(*, level: str, log_format: str, levels: Mapping[str, str] | None = None) -> None:
    """Send every ``manent.*`` logger at ``level`` and above to standard error, others from warnings on.

    Args:
        level: debug, info, warning or error.
        log_format: console, json, or auto (console where standard error is a terminal).
        levels: the levels of single loggers, with what is below them: ``manent.http`` and the like.
    """
    global _handler  # noqa: PLW0603 (a process has one standard error)
    stop_logging()
    console = log_format == "console" or (log_format == "auto" and sys.stderr is not None and sys.stderr.isatty())
    _handler = BackgroundHandler(sys.stderr)
    _handler.setFormatter(_formatter(console=console))
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("manent").setLevel(level.upper())
    # It announces a "production mode" and options that Manent does not have.
    logging.getLogger("sanic").setLevel(logging.ERROR)
    for name, own_level in (levels or {}).items():
        logging.getLogger(name).setLevel(own_level.upper())


def stop_logging() -> None:
    """Write what is still to be written, within a moment."""
    if _handler is not None:
        _handler.close()


def dropped_lines() -> int:
    """How many lines were dropped, since nobody took them in time."""
    return 0 if _handler is None else _handler.dropped


def _formatter(*, console: bool) -> logging.Formatter:
    render: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _name_time_and_error],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    )


def _name_time_and_error(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The members that every line has; of an exception, what may stand in a log."""
    record: logging.LogRecord = event["_record"]
    event["level"] = record.levelname.lower()
    event["logger"] = record.name
    event["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
    error = _error_of(event.pop("exc_info", None))
    if error is not None:
        event["exception"] = safe_traceback(error)
    return event


def _error_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    found = exc_info[1] if isinstance(exc_info, tuple) else None
    return found if isinstance(found, BaseException) else None


def _json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
