"""Standard logging, rendered by structlog to standard error."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logging(*, level: str, log_format: str) -> None:
    """Send every ``manent.*`` logger at ``level`` and above to standard error, others from warnings on.

    Args:
        level: debug, info, warning or error.
        log_format: console, json, or auto (console where standard error is a terminal).
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([] if console else [structlog.processors.format_exc_info]),
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("manent").setLevel(level.upper())
    # It announces a "production mode" and options that Manent does not have.
    logging.getLogger("sanic").setLevel(logging.ERROR)
