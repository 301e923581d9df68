"""Standard logging, to standard error, by a thread that nobody waits for."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType

from manent.adapters.logs.lines import JsonLines, console_lines
from manent.adapters.logs.writer import BackgroundHandler
from manent.domain.errors import DomainError
from manent.domain.safe_errors import safe_traceback

STANDARD_STREAMS = 3

_handler: BackgroundHandler | None = None
_log = logging.getLogger("manent.defects")


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
    _handler.setFormatter(console_lines() if console else JsonLines())
    # Nobody prints these, and finding them takes half of a record's time (the logging HOWTO, "Optimization").
    logging._srcfile = None  # noqa: SLF001 (the HOWTO's own way)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("manent").setLevel(level.upper())
    # It announces a "production mode" and options that Manent does not have.
    logging.getLogger("sanic").setLevel(logging.ERROR)
    for name in ("sanic.error", "sanic.root"):
        logging.getLogger(name).addFilter(_is_news)
    for name, own_level in (levels or {}).items():
        logging.getLogger(name).setLevel(own_level.upper())


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of Sanic's tells what Manent's own do not: a stream that ended in a known error is in those."""
    error = record.exc_info[1] if record.exc_info else sys.exc_info()[1]
    return not isinstance(error, DomainError)


def stop_logging() -> None:
    """Write what is still to be written, within a moment."""
    if _handler is not None:
        _handler.close()


def dropped_lines() -> int:
    """How many lines were dropped, since nobody took them in time."""
    return 0 if _handler is None else _handler.dropped


def log_defects() -> None:
    """Have exceptions that nobody catches told without their messages, and a crash of the process by its frames.

    Python itself would write what they say, and so perhaps somebody's words.
    """

    def ended(_kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
        with suppress(AttributeError, OSError, ValueError):  # by now nothing else writes, and it may be closed
            sys.stderr.write(f"{safe_traceback(error)}\n")

    def lost(error: BaseException | None, where: str) -> None:
        _log.error("an exception in %s was caught by nobody", where, exc_info=error)

    sys.excepthook = ended
    threading.excepthook = lambda found: lost(found.exc_value, "a thread")
    sys.unraisablehook = lambda found: lost(found.exc_value, "a finalizer")
    with suppress(AttributeError, OSError, RuntimeError, ValueError):  # standard error is closed
        faulthandler.enable()


def fill_standard_streams() -> None:
    """Put the null device where a standard stream is closed, or the next file to be opened would be one."""
    for descriptor in range(STANDARD_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
