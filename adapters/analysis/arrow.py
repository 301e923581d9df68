"""The export schema as Arrow has it: one wide table of events, and rows of the log as its record batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from manent.domain.errors import LogCorrupt
from manent.domain.usecases.export_events import Row

TIME = pa.timestamp("us", tz="UTC")
# ``log`` is the column's name in the log where it has another one.
EVENTS = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("recorded_at", TIME, nullable=False, metadata={"log": "recorded_at_us"}),
        pa.field("type", pa.string(), nullable=False),
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("actor", pa.string(), nullable=False),
        pa.field("stream_id", pa.string(), nullable=False),
        pa.field("stream_version", pa.int32(), nullable=False),
        pa.field("request_id", pa.string()),
        pa.field("correlation_id", pa.string()),
        pa.field("causation_id", pa.string()),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("log_id", pa.string(), nullable=False),
        pa.field("payload_digest", pa.string(), nullable=False),
        pa.field("salt", pa.binary()),
        pa.field("payload", pa.string()),
    ]
)


def log_columns(schema: pa.Schema) -> Sequence[str]:
    """The columns of the log that the fields of ``schema``, a selection from ``EVENTS``, are made of."""
    return [(field.metadata or {}).get(b"log", field.name.encode()).decode() for field in schema]


def record_batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of ``log_columns(schema)`` as one batch.

    Raises:
        LogCorrupt: a value is not of the kind that its column has.
    """
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    try:
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
    except (pa.ArrowException, TypeError, OverflowError, UnicodeError) as error:
        place = f"between positions {rows[0][0]} and {rows[-1][0]}" if rows else "in an empty page"
        raise LogCorrupt(
            f"a value {place} is not of the kind that the log has there ({error}); `manent log verify` says more"
        ) from error
