"""Times as clients write them: RFC 3339 with its offset, or an integer, of microseconds or seconds as told."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
MICROSECONDS = re.compile(r"\d{1,18}", re.ASCII)
SECONDS = re.compile(r"\d{1,11}", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXPECTED = "a time such as 2026-11-24T09:30:00Z or 2026-11-24T10:30:00.5+01:00, or {} since 1970"
EXPECTED = _EXPECTED.format("microseconds")
EXPECTED_SECONDS = _EXPECTED.format("seconds")


def microseconds(text: str, *, counts_seconds: bool = False) -> int:
    """``text`` in microseconds since 1970, as ``recorded_at_us`` counts them.

    An integer counts microseconds, as headers do, or seconds, as ``created_at`` does.

    An offset is asked for, since a time without one is another time on each machine.

    Raises:
        ValueError: it is neither an RFC 3339 time with at most six decimals nor an integer.
    """
    if (SECONDS if counts_seconds else MICROSECONDS).fullmatch(text):
        return int(text) * (1_000_000 if counts_seconds else 1)
    if not RFC_3339.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not {EXPECTED_SECONDS if counts_seconds else EXPECTED}")
    try:
        time = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"{text!r} is no time: {error}") from None
    return max(0, (time - EPOCH) // timedelta(microseconds=1))
