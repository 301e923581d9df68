"""A batch as arrays for ``unnest``: the whole batch goes to PostgreSQL in one statement, whatever its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from manent.adapters.store.batch import Batch
from manent.adapters.store.frontier import HEADER_FIELDS

_INTEGERS = {
    "position": "int8",
    "recorded_at_us": "int8",
    "schema_version": "int4",
    "stream_version": "int4",
}
_REPLACE_ANSWER = (
    " ON CONFLICT (scope, key) DO UPDATE SET request_digest = excluded.request_digest, position = excluded.position, "
    "stream_version = excluded.stream_version, recorded_at_us = excluded.recorded_at_us"
)
_CLOSE = (
    "DELETE FROM open_completions AS o USING unnest({arrays}) AS k(tenant, completion_id) "
    "WHERE o.tenant = k.tenant AND o.completion_id = k.completion_id"
)


@dataclass(frozen=True)
class _Part:
    """What is done with the rows of one kind. ``same`` are the columns that have one value in all rows of a batch."""

    table: str
    columns: Sequence[str]
    types: Sequence[str]
    same: frozenset[str] = frozenset()
    conflict: str = ""
    statement: str = ""

    def sql(self, numbers: Iterator[int]) -> str:
        """The statement, its values numbered on from where ``numbers`` is."""
        typed = [f"${next(numbers)}::{name}" for name in self.types]
        arrays = ", ".join(f"{one}[]" for one, name in zip(typed, self.columns, strict=True) if name not in self.same)
        if self.statement:
            return self.statement.format(arrays=arrays)
        names = ", ".join(name for name in self.columns if name not in self.same)
        values = ", ".join(
            one if name in self.same else f"u.{name}" for one, name in zip(typed, self.columns, strict=True)
        )
        listed = ", ".join(self.columns)
        return f"INSERT INTO {self.table} ({listed}) SELECT {values} FROM unnest({arrays}) AS u({names}){self.conflict}"  # noqa: S608 (our own names)

    def values(self, rows: Sequence[Sequence[Any]]) -> Iterator[Any]:
        """What the statement takes: a column of the rows, or its one value."""
        for name, column in zip(self.columns, zip(*rows, strict=True), strict=True):
            yield column[0] if name in self.same else column


_PARTS = (
    _Part(
        "event_headers",
        HEADER_FIELDS,
        [_INTEGERS.get(name, "text") for name in HEADER_FIELDS],
        same=frozenset({"log_id", "recorded_at_us"}),
    ),
    _Part(
        "event_payloads",
        ("position", "encoding", "salt", "payload"),
        ("int8", "text", "bytea", "bytea"),
        same=frozenset({"encoding"}),
    ),
    _Part("tree_nodes", ("level", "node", "hash"), ("int4", "int8", "bytea")),
    _Part("event_models", ("model_id", "position"), ("text", "int8")),
    _Part(
        "open_completions",
        ("tenant", "completion_id", "stream_id", "position", "node"),
        ("text", "text", "text", "int8", "int8"),
        same=frozenset({"node"}),
    ),
    _Part(
        "completions",
        ("tenant", "completion_id", "position"),
        ("text", "text", "int8"),
        conflict=" ON CONFLICT DO NOTHING",
    ),
    _Part(
        "idempotency_keys",
        ("scope", "key", "request_digest", "position", "stream_version", "recorded_at_us"),
        ("text", "text", "text", "int8", "int8", "int8"),
        conflict=_REPLACE_ANSWER,
    ),
    _Part("open_completions", ("tenant", "completion_id"), ("text", "text"), statement=_CLOSE),
)


def writing(batch: Batch, node_id: int | None) -> tuple[str, list[Any]]:
    """One statement that writes the rows of ``batch``, and its values: one round trip, one plan.

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
    rows = (
        batch.headers,
        batch.payloads,
        batch.nodes,
        batch.models,
        opened,
        batch.in_sessions,
        answers,
        batch.closed,
    )
    present = tuple(number for number, found in enumerate(rows) if found)
    return _statement(present), [value for number in present for value in _PARTS[number].values(rows[number])]


@cache
def _statement(present: tuple[int, ...]) -> str:
    """The parts that have rows, as one statement: a part without any would be planned, and cost time, all the same."""
    numbers = iter(range(1, 100))
    *firsts, last = (_PARTS[number].sql(numbers) for number in present)
    named = ", ".join(f"part{number} AS ({first})" for number, first in enumerate(firsts))
    return f"WITH {named} {last}"
