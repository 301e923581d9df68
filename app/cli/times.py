"""Times as options of commands."""

from __future__ import annotations

from manent.adapters.http.times import microseconds
from manent.app.cli.output import ExitCode, fail


def time_us(option: str, text: str | None) -> int | None:
    """What ``option`` says, in microseconds since 1970; the end of the command where that is no time."""
    try:
        return None if text is None else microseconds(text)
    except ValueError as error:
        fail(f"{option}: {error}", ExitCode.USAGE)
