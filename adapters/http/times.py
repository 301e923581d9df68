"""Times as clients write them: RFC 3339 with its offset, or the integer microseconds that headers carry."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
MICROSECONDS = re.compile(r"\d{1,18}", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXPECTED = "a time such as 2026-11-24T09:30:00Z or 2026-11-24T10:30:00.5+01:00, or microseconds since 1970"


def microseconds(text: str) -> int:
    """``text`` in microseconds since 1970, as ``recorded_at_us`` counts them.

    An offset is asked for, since a time without one is another time on each machine.

    Raises:
        ValueError: it is neither an RFC 3339 time with at most six decimals nor an integer.
    """
    if MICROSECONDS.fullmatch(text):
        return int(text)
    if not RFC_3339.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not {EXPECTED}")
    try:
        time = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"{text!r} is no time: {error}") from None
    return max(0, (time - EPOCH) // timedelta(microseconds=1))
