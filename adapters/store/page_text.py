"""Queries of the log as text for a driver, compiled once for each shape of a filter: that takes as long as a page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Dialect, Select
from sqlalchemy.dialects import postgresql, sqlite

from manent.adapters.store.event_query import has_times, select_page, select_positions
from manent.domain.records import EventFilter

Statement = tuple[str, Sequence[Any]]
"""Text with a ``?`` for each value, and the values."""

_EQUAL = ("tenant", "stream_id", "type", "actor", "model_id", "request_id", "correlation_id")
# What is compiled holds these in place of values, by which the values' places are found again.
_BEGIN, _END, _LIMIT, _SINCE, _UNTIL = (2**61 + number for number in range(5))
_DIALECTS: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(),
    "postgresql": postgresql.dialect(paramstyle="qmark"),  # type: ignore[no-untyped-call]  # SQLAlchemy's own
}


def page_text(
    dialect: str,
    wanted: EventFilter,
    *,
    after_position: int,
    limit: int,
    columns: Sequence[str] | None = None,
    newest_first: bool = False,
) -> Statement:
    """``select_page`` for the driver of ``dialect``, which is ``sqlite`` or ``postgresql``."""
    given = tuple(name for name in _EQUAL if getattr(wanted, name) is not None)
    ended = wanted.max_position is not None
    text, places = _page(dialect, given, None if columns is None else tuple(columns), ended=ended, newest=newest_first)
    begin = max(after_position, (wanted.min_position or 1) - 1)
    values = {_BEGIN: begin, _END: wanted.max_position, _LIMIT: limit}
    return text, [getattr(wanted, place) if isinstance(place, str) else values.get(place, place) for place in places]


def positions_text(dialect: str, wanted: EventFilter) -> Statement | None:
    """``select_positions`` for the driver of ``dialect``."""
    if not has_times(wanted):
        return None
    text, places = _positions(dialect, since=wanted.since_us is not None, until=wanted.until_us is not None)
    values = {_SINCE: wanted.since_us, _UNTIL: wanted.until_us}
    return text, [values.get(place, place) for place in places]


@lru_cache(maxsize=1024)
def _page(
    dialect: str, given: tuple[str, ...], columns: tuple[str, ...] | None, *, ended: bool, newest: bool
) -> tuple[str, Sequence[Any]]:
    marked = EventFilter(**dict(zip(given, given, strict=True)), max_position=_END if ended else None)  # type: ignore[arg-type]  # texts by name
    page = select_page(marked, after_position=_BEGIN, limit=_LIMIT, columns=columns, newest_first=newest)
    return _compiled(page, dialect)


@lru_cache(maxsize=16)
def _positions(dialect: str, *, since: bool, until: bool) -> tuple[str, Sequence[Any]]:
    marked = EventFilter(since_us=_SINCE if since else None, until_us=_UNTIL if until else None)
    return _compiled(select_positions(marked), dialect)


def _compiled(query: Select[Any], dialect: str) -> tuple[str, Sequence[Any]]:
    compiled = query.compile(dialect=_DIALECTS[dialect])
    return str(compiled), [compiled.params[name] for name in compiled.positiontup or ()]
