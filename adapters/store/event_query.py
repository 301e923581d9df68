"""From an EventFilter to one SELECT that an index serves in log order, on SQLite and on PostgreSQL.

Without statistics SQLite takes the index with the most equal columns, or the first of several that look alike: with a
request id and a tenant that may be the whole tenant. So the leading index is chosen here, by what narrows most, and
every other column is kept from SQLite's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

from manent.adapters.store.schema import event_headers, event_models, event_payloads
from manent.domain.records import EventFilter

NOWHERE = 2**62

_COLUMNS = event_headers.c


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
    return _select_records(event_headers)


def select_page(wanted: EventFilter, *, after_position: int, limit: int) -> Select[Any]:
    """At most ``limit`` events that match ``wanted`` (its times aside), in log order."""
    given = {column: value for column, value in _equalities(wanted).items() if value is not None}
    lead = next(lead for lead in _LEADS if given.keys() >= set(lead.equal))
    by_model = lead.order is event_models.c.position
    joined = event_models.join(event_headers, event_models.c.position == _COLUMNS.position)
    query = _select_records(joined if by_model else event_headers)
    for column, value in given.items():
        query = query.where(_equal(column, value, leads=column in lead.equal))
    # A stream's key goes on with its versions; the search must not prefer the positions to it.
    position = lead.order if lead.order.name == _COLUMNS.position.name else _Unindexed(_COLUMNS.position)
    query = query.where(position > max(after_position, (wanted.min_position or 1) - 1))
    if wanted.max_position is not None:
        query = query.where(position <= wanted.max_position)
    return query.order_by(lead.order).limit(limit)


async def in_positions(connection: AsyncConnection, wanted: EventFilter) -> EventFilter:
    """A range of times as a range of positions, by two look-ups: times in the log never run backwards."""
    in_time = select(_COLUMNS.position).order_by(_COLUMNS.recorded_at_us, _COLUMNS.position).limit(1)
    if wanted.since_us is not None:
        first = (await connection.execute(in_time.where(_COLUMNS.recorded_at_us >= wanted.since_us))).scalar()
        begin = NOWHERE if first is None else first
        wanted = replace(wanted, min_position=max(wanted.min_position or 1, begin))
    if wanted.until_us is not None:
        later = (await connection.execute(in_time.where(_COLUMNS.recorded_at_us > wanted.until_us))).scalar()
        if later is not None:
            end = later - 1 if wanted.max_position is None else min(wanted.max_position, later - 1)
            wanted = replace(wanted, max_position=end)
    return wanted


def _select_records(sources: Any) -> Select[Any]:
    return select(event_headers, event_payloads.c.payload, event_payloads.c.salt).select_from(
        sources.outerjoin(event_payloads, event_payloads.c.position == _COLUMNS.position)
    )


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
