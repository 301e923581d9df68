"""Finding stored completions in a database: one index chooses a page, in its order, and the rest is looked up."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, Select, literal, select

from manent.adapters.store.codec import decode_event
from manent.adapters.store.event_query import NOWHERE
from manent.adapters.store.json_pairs import JsonPairs
from manent.adapters.store.schema import event_headers, event_payloads, stored_completions, stored_metadata
from manent.adapters.store.session_index import pair_digest
from manent.adapters.store.session_list import Reading
from manent.adapters.store.stored_index import OPEN, STORED
from manent.domain.stored_completions import StoredCompletion, StoredFilter

_COLUMNS = stored_completions.c
_PAIRS = stored_metadata.c


class SQLStoredCompletions:
    """Implements ``StoredCompletionDirectory``; ``reading`` gives a connection in a transaction."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def page(
        self, wanted: StoredFilter, *, after_position: int | None, limit: int, descending: bool
    ) -> list[StoredCompletion]:
        """See ``StoredCompletionDirectory.page``."""
        above, below = 0, NOWHERE
        if after_position is not None:
            above, below = (above, after_position) if descending else (after_position, below)
        chosen = choose_stored(wanted, above=above, below=below, limit=limit, descending=descending)
        async with self._reading() as connection:
            found = [_stored(row) for row in await connection.execute(select_stored(chosen))]
        return sorted(found, key=lambda stored: stored.position, reverse=descending)

    async def find(self, tenant: str, completion_id: str) -> StoredCompletion | None:
        """See ``StoredCompletionDirectory.find``."""
        chosen = select(_COLUMNS.tenant, _COLUMNS.completion_id).where(
            _COLUMNS.tenant == tenant, _COLUMNS.completion_id == completion_id, _COLUMNS.status == STORED
        )
        async with self._reading() as connection:
            row = (await connection.execute(select_stored(chosen))).first()
        return None if row is None else _stored(row)

    async def place(self, tenant: str, owner: str, completion_id: str) -> int | None:
        """See ``StoredCompletionDirectory.place``."""
        query = select(_COLUMNS.position).where(
            _COLUMNS.tenant == tenant,
            _COLUMNS.completion_id == completion_id,
            _COLUMNS.owner == owner,
            _COLUMNS.status != OPEN,
        )
        async with self._reading() as connection:
            return (await connection.execute(query)).scalar()


def choose_stored(wanted: StoredFilter, *, above: int, below: int, limit: int, descending: bool) -> Select[Any]:
    """Tenant and id of the completions of a page, whose positions lie between ``above`` and ``below``.

    With metadata the first pair leads, and what else is asked for is looked up by key.
    """
    pairs = list(wanted.metadata.items())
    columns = _PAIRS if pairs else _COLUMNS
    query = select(columns.tenant, columns.completion_id).where(
        columns.tenant == wanted.tenant, columns.owner == wanted.owner, columns.status == STORED
    )
    if pairs:
        key, value = pairs[0]
        query = query.where(_PAIRS.pair == pair_digest(key, value), _PAIRS.key == key, _PAIRS.value == value)
        if wanted.model_id is not None:
            query = query.where(_is_of_model(wanted.model_id))
    elif wanted.model_id is not None:
        query = query.where(_COLUMNS.model_id == wanted.model_id)
    for key, value in pairs[1:]:
        query = query.where(_has_pair(key, value))
    query = query.where(columns.position > above, columns.position < below)
    return query.order_by(columns.position.desc() if descending else columns.position).limit(limit)


def select_stored(chosen: Select[Any]) -> Select[Any]:
    """What is told of the completions that ``chosen`` names, in no order."""
    page = chosen.subquery("page")
    asked, ended = event_headers.alias("asked"), event_headers.alias("ended")
    asked_payload, ended_payload = event_payloads.alias("asked_payload"), event_payloads.alias("ended_payload")
    metadata = (
        select(JsonPairs(_PAIRS.key, _PAIRS.value))
        .where(_PAIRS.tenant == page.c.tenant, _PAIRS.completion_id == page.c.completion_id)
        .scalar_subquery()
    )
    return select(
        stored_completions,
        metadata.label("metadata"),
        asked.c.type.label("asked_type"),
        asked.c.schema_version.label("asked_schema"),
        asked_payload.c.payload.label("asked_payload"),
        ended.c.type.label("ended_type"),
        ended.c.schema_version.label("ended_schema"),
        ended_payload.c.payload.label("ended_payload"),
    ).select_from(
        page.join(
            stored_completions,
            (_COLUMNS.tenant == page.c.tenant) & (_COLUMNS.completion_id == page.c.completion_id),
        )
        .join(asked, asked.c.position == _COLUMNS.position)
        .join(ended, ended.c.position == _COLUMNS.ended_position)
        .outerjoin(asked_payload, asked_payload.c.position == _COLUMNS.position)
        .outerjoin(ended_payload, ended_payload.c.position == _COLUMNS.ended_position)
    )


def _is_of_model(model_id: str) -> ColumnElement[bool]:
    return (
        select(literal(1))
        .where(_COLUMNS.tenant == _PAIRS.tenant, _COLUMNS.completion_id == _PAIRS.completion_id)
        .where(_COLUMNS.model_id == model_id)
        .correlate(stored_metadata)
        .exists()
    )


def _has_pair(key: str, value: str) -> ColumnElement[bool]:
    other = stored_metadata.alias()
    return (
        select(literal(1))
        .where(other.c.tenant == _PAIRS.tenant, other.c.completion_id == _PAIRS.completion_id)
        .where(other.c.key == key, other.c.value == value)
        .correlate(stored_metadata)
        .exists()
    )


def _stored(row: Row[Any]) -> StoredCompletion:
    return StoredCompletion(
        position=row.position,
        completion_id=row.completion_id,
        owner=row.owner,
        metadata=row.metadata or {},
        version=row.version,
        requested=decode_event(row.asked_type, row.asked_schema, row.asked_payload),
        generated=decode_event(row.ended_type, row.ended_schema, row.ended_payload),
    )
