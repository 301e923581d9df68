"""Finding sessions in a database: pages that one index serves, and whose sessions may have to expire.

Every statement first chooses its page, by one index and in its order, and then looks the rest up by key: the session's
row, its first event, its last event (by the stream's key), its metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Subquery, bindparam, func, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from manent.adapters.store.codec import decode_event
from manent.adapters.store.event_query import NOWHERE
from manent.adapters.store.json_pairs import JsonPairs
from manent.adapters.store.schema import event_headers, event_payloads, session_metadata, sessions
from manent.adapters.store.session_index import pair_digest
from manent.domain.events import SessionExpired, SessionStarted, session_stream
from manent.domain.session import SessionStatus
from manent.domain.session_list import DueSession, ListedSession, SessionFilter

PAIRS_COUNTED = 10_000

Reading = Callable[[], AbstractAsyncContextManager[AsyncConnection]]

_COLUMNS = sessions.c
_PAIRS = session_metadata.c
_LAST = event_headers.alias("last_header")


class SQLSessionDirectory:
    """Implements ``SessionDirectory``; ``reading`` gives a connection in a transaction, and translates its errors."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def page(
        self, wanted: SessionFilter, *, after_position: int | None, limit: int, descending: bool
    ) -> list[ListedSession]:
        """See ``SessionDirectory.page``."""
        async with self._reading() as connection:
            first = 1 if wanted.since_us is None else await _first_position(connection, wanted.since_us)
            end = NOWHERE if wanted.before_us is None else await _first_position(connection, wanted.before_us)
            above, below = first - 1, end
            if after_position is not None:
                above, below = (
                    (above, min(below, after_position)) if descending else (max(above, after_position), below)
                )
            wanted = await _narrowest_first(connection, wanted)
            chosen = choose_page(wanted, above=above, below=below, limit=limit, descending=descending)
            found = [_listed(row) for row in await connection.execute(select_listed(chosen))]
        return sorted(found, key=lambda session: session.position, reverse=descending)

    async def find(self, tenant: str, session_id: str) -> ListedSession | None:
        """See ``SessionDirectory.find``."""
        chosen = select(_COLUMNS.tenant, _COLUMNS.session_id, _COLUMNS.position).where(
            _COLUMNS.tenant == tenant, _COLUMNS.session_id == session_id
        )
        async with self._reading() as connection:
            row = (await connection.execute(select_listed(chosen))).first()
        return None if row is None else _listed(row)

    async def due(self, now_us: int, *, after: DueSession | None, limit: int) -> list[DueSession]:
        """See ``SessionDirectory.due``."""
        async with self._reading() as connection:
            rows = await connection.execute(select_due(now_us, after=after, limit=limit))
            found = [
                DueSession(
                    tenant=row.tenant,
                    session_id=row.session_id,
                    position=row.position,
                    due_at_us=row.expires_at_us,
                    ttl_s=row.ttl_s,
                    changed_at_us=row.recorded_at_us,
                )
                for row in rows
            ]
        return sorted(found, key=lambda due: (due.due_at_us, due.position))

    async def postpone(self, sessions: Sequence[tuple[DueSession, int]]) -> None:
        """See ``SessionDirectory.postpone``."""
        if not sessions:
            return
        async with self._reading() as connection:
            await connection.execute(
                _POSTPONE,
                [
                    {"of": due.tenant, "named": due.session_id, "was_us": due.due_at_us, "next_us": next_us}
                    for due, next_us in sessions
                ],
            )


def choose_page(wanted: SessionFilter, *, above: int, below: int, limit: int, descending: bool) -> Select[Any]:
    """Tenant, id and position of the sessions of a page, whose positions lie between ``above`` and ``below``.

    The rows of metadata carry what else narrows, so that one index serves any filter. With several pairs the first
    leads, and the others are looked up: the rarest belongs there.
    """
    pairs = list(wanted.metadata.items())
    columns = _PAIRS if pairs else _COLUMNS
    query = select(columns.tenant, columns.session_id, columns.position).where(
        columns.tenant == wanted.tenant, columns.status == wanted.status.value
    )
    if wanted.owner is not None:
        query = query.where(columns.owner == wanted.owner)
    if pairs:
        key, value = pairs[0]
        query = query.where(_PAIRS.pair == pair_digest(key, value), _PAIRS.key == key, _PAIRS.value == value)
    for key, value in pairs[1:]:
        query = query.where(_has_pair(key, value))
    query = query.where(columns.position > above, columns.position < below)
    return query.order_by(columns.position.desc() if descending else columns.position).limit(limit)


def count_pairs(wanted: SessionFilter) -> Select[Any]:
    """How many sessions have each pair of metadata, as far as ``PAIRS_COUNTED``; one column a pair, in their order."""
    counts = []
    for key, value in wanted.metadata.items():
        rows = select(_PAIRS.position).where(
            _PAIRS.tenant == wanted.tenant,
            _PAIRS.status == wanted.status.value,
            _PAIRS.pair == pair_digest(key, value),
        )
        if wanted.owner is not None:
            rows = rows.where(_PAIRS.owner == wanted.owner)
        counted = rows.limit(PAIRS_COUNTED).subquery()
        counts.append(select(func.count()).select_from(counted).scalar_subquery())
    return select(*counts)


def select_listed(chosen: Select[Any]) -> Select[Any]:
    """What lists show of the sessions that ``chosen`` names, in no order."""
    page = chosen.subquery("page")
    first = event_headers.alias("first_header")
    metadata = (
        select(JsonPairs(_PAIRS.key, _PAIRS.value))
        .where(_PAIRS.tenant == page.c.tenant, _PAIRS.session_id == page.c.session_id)
        .scalar_subquery()
    )
    ended = event_payloads.alias("last_payload")
    return select(
        sessions,
        metadata.label("metadata"),
        first.c.type,
        first.c.schema_version,
        first.c.recorded_at_us.label("started_at_us"),
        event_payloads.c.payload,
        _LAST.c.stream_version,
        _LAST.c.recorded_at_us,
        _LAST.c.type.label("last_type"),
        _LAST.c.schema_version.label("last_schema_version"),
        ended.c.payload.label("last_payload"),
    ).select_from(
        page.join(sessions, (_COLUMNS.tenant == page.c.tenant) & (_COLUMNS.session_id == page.c.session_id))
        .join(first, first.c.position == page.c.position)
        .join(_LAST, _LAST.c.position == _last_position(page))
        .outerjoin(event_payloads, event_payloads.c.position == page.c.position)
        .outerjoin(ended, (ended.c.position == _LAST.c.position) & (_LAST.c.type == SessionExpired.__name__))
    )


def select_due(now_us: int, *, after: DueSession | None, limit: int) -> Select[Any]:
    """The sessions that may expire at ``now_us`` or before, with when each was used last; in no order."""
    chosen = select(_COLUMNS.tenant, _COLUMNS.session_id, _COLUMNS.position, _COLUMNS.expires_at_us, _COLUMNS.ttl_s)
    chosen = chosen.where(_COLUMNS.expires_at_us <= now_us)
    if after is not None:
        place = tuple_(_COLUMNS.expires_at_us, _COLUMNS.position)
        chosen = chosen.where(place > tuple_(literal(after.due_at_us), literal(after.position)))
    page = chosen.order_by(_COLUMNS.expires_at_us, _COLUMNS.position).limit(limit).subquery("page")
    return select(page, _LAST.c.recorded_at_us).select_from(page.join(_LAST, _LAST.c.position == _last_position(page)))


# A row that somebody else is changing is skipped and not waited for: appends and this must never wait in a circle.
_POSTPONE = (
    update(sessions)
    .where(
        tuple_(_COLUMNS.tenant, _COLUMNS.session_id).in_(
            select(_COLUMNS.tenant, _COLUMNS.session_id)
            .where(
                _COLUMNS.tenant == bindparam("of"),
                _COLUMNS.session_id == bindparam("named"),
                _COLUMNS.expires_at_us == bindparam("was_us"),
            )
            .with_for_update(skip_locked=True)
        )
    )
    .values(expires_at_us=bindparam("next_us"))
)


def _has_pair(key: str, value: str) -> ColumnElement[bool]:
    other = session_metadata.alias()
    return (
        select(literal(1))
        .where(other.c.tenant == _PAIRS.tenant, other.c.session_id == _PAIRS.session_id)
        .where(other.c.key == key, other.c.value == value)
        .correlate(session_metadata)
        .exists()
    )


def _last_position(page: Subquery) -> ColumnElement[int]:
    """Where the last event of a session's stream is."""
    last = event_headers.alias("of_stream")
    return (
        select(last.c.position)
        .where(last.c.tenant == page.c.tenant)
        .where(last.c.stream_id == literal(session_stream("")).concat(page.c.session_id))
        .order_by(last.c.stream_version.desc())
        .limit(1)
        .scalar_subquery()
    )


async def _narrowest_first(connection: AsyncConnection, wanted: SessionFilter) -> SessionFilter:
    """The same filter with its rarest pair at the front: the page is as long on its way as that pair is common."""
    if len(wanted.metadata) <= 1:
        return wanted
    counts = (await connection.execute(count_pairs(wanted))).one()
    by_count = sorted(zip(counts, wanted.metadata.items(), strict=True), key=lambda counted: counted[0])
    return replace(wanted, metadata=dict(pair for _, pair in by_count))


async def _first_position(connection: AsyncConnection, since_us: int) -> int:
    """The first position at ``since_us`` or later, or behind all of them: times in the log never run backwards."""
    headers = event_headers.c
    in_time = select(headers.position).where(headers.recorded_at_us >= since_us)
    found = await connection.scalar(in_time.order_by(headers.recorded_at_us, headers.position).limit(1))
    return NOWHERE if found is None else int(found)


def _listed(row: Row[Any]) -> ListedSession:
    began = decode_event(row.type, row.schema_version, row.payload)
    started = began if isinstance(began, SessionStarted) else None
    ended = decode_event(row.last_type, row.last_schema_version, row.last_payload)
    return ListedSession(
        position=row.position,
        session_id=row.session_id,
        tenant=row.tenant,
        owner=row.owner,
        status=SessionStatus(row.status),
        metadata=row.metadata or {},
        ttl_s=row.ttl_s,
        parent=started.parent if started else None,
        version=row.stream_version,
        started_at_us=started.started_at_us if started else row.started_at_us,
        changed_at_us=row.recorded_at_us,
        expired_at_us=ended.expired_at_us if isinstance(ended, SessionExpired) else None,
    )
