"""A batch as arrays for ``unnest``: the whole batch goes to PostgreSQL in one statement, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from manent.adapters.store.batch import Batch, payload_rows
from manent.adapters.store.frontier import HEADER_FIELDS

_INTEGERS = {
    "position": "int8",
    "recorded_at_us": "int8",
    "schema_version": "int4",
    "stream_version": "int4",
}
_HEADER_TYPES = [_INTEGERS.get(name, "text") for name in HEADER_FIELDS]
_HEADER_VALUES = attrgetter(*HEADER_FIELDS)
_REPLACE_ANSWER = (
    " ON CONFLICT (scope, key) DO UPDATE SET request_digest = excluded.request_digest, position = excluded.position, "
    "stream_version = excluded.stream_version, recorded_at_us = excluded.recorded_at_us"
)
_TABLES: Sequence[tuple[str, str, Sequence[str], Sequence[str], str]] = (
    ("headers", "event_headers", HEADER_FIELDS, _HEADER_TYPES, ""),
    ("payloads", "event_payloads", ("position", "encoding", "salt", "payload"), ("int8", "text", "bytea", "bytea"), ""),
    ("nodes", "tree_nodes", ("level", "node", "hash"), ("int4", "int8", "bytea"), ""),
    ("models", "event_models", ("model_id", "position"), ("text", "int8"), ""),
    (
        "opened",
        "open_completions",
        ("tenant", "completion_id", "stream_id", "position", "node"),
        ("text", "text", "text", "int8", "int8"),
        "",
    ),
    (
        "answers",
        "idempotency_keys",
        ("scope", "key", "request_digest", "position", "stream_version", "recorded_at_us"),
        ("text", "text", "text", "int8", "int8", "int8"),
        _REPLACE_ANSWER,
    ),
)


def _write_statement() -> str:
    """One INSERT for each table and the DELETE of what is closed, as one statement: one round trip, one plan."""
    parts, number = [], 1
    for name, table, columns, types, conflict in _TABLES:
        arrays = ", ".join(f"${number + index}::{type_name}[]" for index, type_name in enumerate(types))
        number += len(types)
        listed = ", ".join(columns)
        parts.append(f"{name} AS (INSERT INTO {table} ({listed}) SELECT * FROM unnest({arrays}){conflict})")  # noqa: S608 (our own names)
    closed = f"unnest(${number}::text[], ${number + 1}::text[]) AS k(tenant, completion_id)"
    return (
        f"WITH {', '.join(parts)} DELETE FROM open_completions AS o USING {closed} "  # noqa: S608 (our own names)
        "WHERE o.tenant = k.tenant AND o.completion_id = k.completion_id"
    )


WRITE = _write_statement()


def write_arguments(batch: Batch, node_id: int | None) -> list[Sequence[Any]]:
    """The arrays that WRITE takes.

    All parts of one statement see the table as it was before it, so what opens and closes within the batch is left out.
    """
    closed = set(batch.closed)
    opened = [
        (o.tenant, o.completion_id, o.stream_id, position, node_id)
        for o, position in batch.opened
        if (o.tenant, o.completion_id) not in closed
    ]
    answers = [
        (*place, kept.request_digest, kept.appended.position, kept.appended.stream_version, kept.recorded_at_us)
        for place, kept in batch.answers.items()
    ]
    tables: tuple[tuple[int, Sequence[Any]], ...] = (
        (len(HEADER_FIELDS), [_HEADER_VALUES(header) for header in batch.headers]),
        (4, payload_rows(batch)),
        (3, batch.nodes),
        (2, batch.models),
        (5, opened),
        (6, answers),
        (2, batch.closed),
    )
    return [column for width, rows in tables for column in _columns(rows, width)]


def _columns(rows: Sequence[Any], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width
