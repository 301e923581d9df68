"""What a query's filter says of where its events lie in the log, so that the log's indexes can be used.

DuckDB hands its filters down as Arrow expressions, which can be printed and applied but not taken apart. So the print
is read, and only where it is nothing but comparisons that all have to hold. The filter is applied to what is read in
any case: what is not understood here costs time, and changes no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from manent.domain.records import EventFilter

_COMPARISON = re.compile(
    r'\((?P<column>\w+) (?P<how>==|>=|<=|>|<) (?:"(?P<text>[^"\\]*)"|(?P<number>-?\d{1,18})|'
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6})Z)\)"
)
_NOTHING_ELSE = re.compile(r"(?:[()]| and )*")
_TEXTS = frozenset({"tenant", "stream_id", "type", "actor", "request_id", "correlation_id"})
_RANGES = {"position": ("min_position", "max_position"), "recorded_at": ("since_us", "until_us")}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def narrowed(wanted: EventFilter, expression: str) -> EventFilter:
    """``wanted`` with what the printed ``expression`` adds to it; never less than both ask for."""
    changes: dict[str, Any] = {}
    for column, how, value in _comparisons(expression):
        if column in _TEXTS and how == "==" and getattr(wanted, column) is None:
            changes[column] = value
        elif column in _RANGES:
            least, most = _RANGES[column]
            if how in {"==", ">=", ">"}:
                changes[least] = max(value + (how == ">"), changes.get(least, getattr(wanted, least) or 0))
            if how in {"==", "<=", "<"}:
                known = changes.get(most, getattr(wanted, most))
                changes[most] = min(value - (how == "<"), value if known is None else known)
    return replace(wanted, **changes)


def _comparisons(expression: str) -> Iterator[tuple[str, str, Any]]:
    if _NOTHING_ELSE.fullmatch(_COMPARISON.sub("", expression)):
        for found in _COMPARISON.finditer(expression):
            yield found["column"], found["how"], _value(found)


def _value(found: re.Match[str]) -> Any:
    if found["number"] is not None:
        return int(found["number"])
    if found["time"] is not None:
        return (datetime.fromisoformat(found["time"]).replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
    return found["text"]
