"""When an event happened, whatever it is: its last member, by a rule that a test keeps."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

from manent.domain.short_events import SessionStep


def happened_at_us(event: SessionStep) -> int | None:
    """When ``event`` happened, in microseconds since 1970; None where the log does not know (any more)."""
    kind: type[Any] = type(event)
    name = _time_member(kind)  # type: ignore[arg-type]  # classes are hashable, whatever mypy thinks of these
    time_us: int | None = None if name is None else getattr(event, name)
    return time_us


@cache
def _time_member(kind: type[Any]) -> str | None:
    last = fields(kind)[-1].name
    return last if last.endswith("_at_us") else None
