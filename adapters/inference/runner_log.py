"""Lines of a runner in the server's log: written to the runner's standard error, read and told on by the server.

Everything else that a runner's libraries write there is kept as its last words only: it may say anything. Tracebacks
are told without their messages, which may hold a prompt.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType

import msgspec

from manent.adapters.inference.protocol import Generate
from manent.domain.safe_errors import safe_name, safe_traceback

MARK = b"manent: "
LINE_MAX_BYTES = 16_384
EXCEPTION_CHARS_MAX = 3_000

_logger = logging.getLogger("manent.runner")


class RunnerLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a runner says, and about which request."""

    event: str
    request_id: str | None = None
    correlation_id: str | None = None
    exception: str | None = None


def say(event: str, *, request: Generate | None = None, error: BaseException | None = None) -> None:
    """Write a line; for use in the runner."""
    line = RunnerLine(
        event=event,
        request_id=None if request is None else request.request_id,
        correlation_id=None if request is None else request.correlation_id,
        exception=None if error is None else safe_traceback(error)[-EXCEPTION_CHARS_MAX:],
    )
    sys.stderr.write(f"{MARK.decode()}{msgspec.json.encode(line).decode()}\n")
    sys.stderr.flush()


def say_defects() -> None:
    """Have exceptions that nobody catches said in this way, with the name alone as the last word."""

    def said(kind: type[BaseException], error: BaseException | None, _traceback: TracebackType | None) -> None:
        say("the runner met a defect", error=error)
        sys.stderr.write(f"{kind.__name__ if error is None else safe_name(error)}\n")

    sys.excepthook = said
    threading.excepthook = lambda found: said(found.exc_type, found.exc_value, found.exc_traceback)
    sys.unraisablehook = lambda found: said(found.exc_type, found.exc_value, found.exc_traceback)


class RunnerLines:
    """Finds the lines in what a runner writes, and tells them on; for use in the server."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Take in what was read."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(MARK):
                self._tell(line.removeprefix(MARK))
        self._rest = self._rest[-LINE_MAX_BYTES:]

    def _tell(self, line: bytes) -> None:
        try:
            said = msgspec.json.decode(line, type=RunnerLine)
        except msgspec.DecodeError:
            return
        extra = {name: value for name, value in msgspec.structs.asdict(said).items() if value and name != "event"}
        if "exception" in extra:
            extra["runner_exception"] = extra.pop("exception")
        _logger.warning("runner %d: %s", self._pid, said.event, extra=extra)
