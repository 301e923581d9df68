"""From an EventFilter to one SELECT that an index serves in log order, on SQLite and on PostgreSQL.

Without statistics SQLite takes the index with the most equal columns, or the first of several that look alike: with a
request id and a tenant that may be the whole tenant. So the leading index is chosen here, by what narrows most, and
every other column is kept from SQLite's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, and_, null, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

from manent.adapters.store.schema import event_headers, event_models, event_payloads
from manent.domain.records import EventFilter

NOWHERE = 2**62

_COLUMNS = event_headers.c
_PAYLOADS = event_payloads.c
_RECORD = (*_COLUMNS, _PAYLOADS.payload, _PAYLOADS.salt)
_STEP = (_COLUMNS.stream_version, _COLUMNS.event_id, _COLUMNS.type, _COLUMNS.schema_version, _PAYLOADS.payload)


@dataclass(frozen=True, slots=True)
class _Lead:
    """An index: the columns that are equal in a page, and the one whose order is the log's within them."""

    equal: tuple[Column[Any], ...]
    order: Column[Any]


# The first whose columns are all asked for is taken. A stream's versions are in log order.
_LEADS: Sequence[_Lead] = (
    _Lead((_COLUMNS.tenant, _COLUMNS.stream_id), _COLUMNS.stream_version),
    _Lead((_COLUMNS.request_id,), _COLUMNS.position),
    _Lead((_COLUMNS.correlation_id,), _COLUMNS.position),
    _Lead((event_models.c.model_id,), event_models.c.position),
    _Lead((_COLUMNS.tenant, _COLUMNS.actor, _COLUMNS.type), _COLUMNS.position),
    _Lead((_COLUMNS.tenant, _COLUMNS.actor), _COLUMNS.position),
    _Lead((_COLUMNS.tenant, _COLUMNS.type), _COLUMNS.position),
    _Lead((_COLUMNS.tenant,), _COLUMNS.position),
    _Lead((), _COLUMNS.position),
)


def select_records() -> Select[Any]:
    """Headers with their payloads, as far as those were not erased."""
    return _select(_RECORD, event_headers)


def select_steps() -> Select[Any]:
    """What a fold needs of events: version, id, type, schema version and payload, as far as that was not erased."""
    return _select(_STEP, event_headers)


def in_stream(
    query: Select[Any], tenant: str, stream_id: str, after_version: int, max_version: int | None
) -> Select[Any]:
    """``query``, of one stream's events in their order, behind ``after_version`` and up to ``max_version``."""
    query = query.where(_COLUMNS.tenant == tenant, _COLUMNS.stream_id == stream_id)
    query = query.where(_COLUMNS.stream_version > after_version).order_by(_COLUMNS.stream_version)
    return query if max_version is None else query.where(_COLUMNS.stream_version <= max_version)


def select_page(
    wanted: EventFilter,
    *,
    after_position: int,
    limit: int,
    columns: Sequence[str] | None = None,
    newest_first: bool = False,
) -> Select[Any]:
    """At most ``limit`` events that match ``wanted`` (its times aside), in log order; with
    ``newest_first`` the last ones, in the other.

    ``columns`` are names of the header's columns, ``salt`` and ``payload``; without them, all.
    """
    given = {column: value for column, value in _equalities(wanted).items() if value is not None}
    lead = next(lead for lead in _LEADS if given.keys() >= set(lead.equal))
    by_model = lead.order is event_models.c.position
    begin = max(after_position, (wanted.min_position or 1) - 1)
    joined = event_models.join(
        event_headers,
        and_(event_models.c.position == _COLUMNS.position, *_between(_COLUMNS.position, begin, wanted.max_position)),
    )
    chosen = _RECORD if columns is None else [_column(name) for name in columns]
    query = _select(
        chosen, joined if by_model else event_headers, _between(_PAYLOADS.position, begin, wanted.max_position)
    )
    for column, value in given.items():
        query = query.where(_equal(column, value, leads=column in lead.equal))
    # A stream's key goes on with its versions; the search must not prefer the positions to it.
    position = lead.order if lead.order.name == _COLUMNS.position.name else _Unindexed(_COLUMNS.position)
    query = query.where(position > begin)
    if wanted.max_position is not None:
        query = query.where(position <= wanted.max_position)
    return query.order_by(lead.order.desc() if newest_first else lead.order).limit(limit)


def has_times(wanted: EventFilter) -> bool:
    """Whether there is a range of times, to be made one of positions."""
    return wanted.since_us is not None or wanted.until_us is not None


def select_positions(wanted: EventFilter) -> Select[Any]:
    """Where the range of times lies in the log, by two look-ups in one row: times in the log never run backwards."""
    return select(_first(since_us=wanted.since_us), _first(after_us=wanted.until_us))


def in_positions(wanted: EventFilter, begin: int | None, later: int | None) -> EventFilter:
    """``wanted`` with its range of times as one of positions; ``begin`` and ``later`` are of ``select_positions``."""
    if wanted.since_us is not None:
        first = NOWHERE if begin is None else begin
        wanted = replace(wanted, min_position=max(wanted.min_position or 1, first))
    if wanted.until_us is not None and later is not None:
        end = later - 1 if wanted.max_position is None else min(wanted.max_position, later - 1)
        wanted = replace(wanted, max_position=end)
    return wanted


def _first(*, since_us: int | None = None, after_us: int | None = None) -> ColumnElement[Any]:
    """The first position that was recorded then or later, or later; NULL where none was, or no time is given."""
    found = select(_COLUMNS.position).order_by(_COLUMNS.recorded_at_us, _COLUMNS.position).limit(1)
    if since_us is not None:
        return found.where(_COLUMNS.recorded_at_us >= since_us).scalar_subquery()
    if after_us is not None:
        return found.where(_COLUMNS.recorded_at_us > after_us).scalar_subquery()
    return null()


def _select(
    columns: Sequence[Column[Any]], sources: Any, payload_bounds: Sequence[ColumnElement[bool]] = ()
) -> Select[Any]:
    if any(column.table is event_payloads for column in columns):
        sources = sources.outerjoin(event_payloads, and_(_PAYLOADS.position == _COLUMNS.position, *payload_bounds))
    return select(*columns).select_from(sources)


def _between(column: Column[Any], begin: int, end: int | None) -> Sequence[ColumnElement[bool]]:
    """The page's range for a joined table: PostgreSQL, which may merge, would read all that lies before it."""
    beginning = _Unindexed(column) > begin
    return (beginning,) if end is None else (beginning, _Unindexed(column) <= end)


def _column(name: str) -> Column[Any]:
    return _PAYLOADS[name] if name in {"salt", "payload"} else _COLUMNS[name]


def _equalities(wanted: EventFilter) -> dict[Column[Any], str | None]:
    return {
        _COLUMNS.tenant: wanted.tenant,
        _COLUMNS.stream_id: wanted.stream_id,
        _COLUMNS.type: wanted.type,
        _COLUMNS.actor: wanted.actor,
        _COLUMNS.request_id: wanted.request_id,
        _COLUMNS.correlation_id: wanted.correlation_id,
        event_models.c.model_id: wanted.model_id,
    }


def _equal(column: Column[Any], value: str, *, leads: bool) -> ColumnElement[bool]:
    """The comparison, as one that an index may serve only where its column is the leading one's."""
    if leads:
        return column == value
    if column is event_models.c.model_id:
        named = select(column).where(column == value, event_models.c.position == _COLUMNS.position)
        return named.correlate(event_headers).exists()
    return _Unindexed(column) == value


class _Unindexed(ColumnElement[Any]):
    """A column that SQLite looks up no index for: its own way to say so is a plus. PostgreSQL's planner has numbers."""

    inherit_cache = True
    _traverse_internals = [("column", InternalTraversal.dp_clauseelement)]  # noqa: RUF012 (what SQLAlchemy caches by)

    def __init__(self, column: Column[Any]) -> None:
        self.column = column
        self.type = column.type


@compiles(_Unindexed)
def _as_it_is(element: _Unindexed, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.column, **options)


@compiles(_Unindexed, "sqlite")
def _without_index(element: _Unindexed, compiler: SQLCompiler, **options: Any) -> str:
    return f"+{compiler.process(element.column, **options)}"
