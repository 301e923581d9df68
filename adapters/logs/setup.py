"""Standard logging, to standard error, by a thread that nobody waits for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

from manent.adapters.logs.lines import JsonLines, console_lines
from manent.adapters.logs.writer import BackgroundHandler

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
    for name, own_level in (levels or {}).items():
        logging.getLogger(name).setLevel(own_level.upper())


def stop_logging() -> None:
    """Write what is still to be written, within a moment."""
    if _handler is not None:
        _handler.close()


def dropped_lines() -> int:
    """How many lines were dropped, since nobody took them in time."""
    return 0 if _handler is None else _handler.dropped
