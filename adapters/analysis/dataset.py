"""The live log as a table that DuckDB scans: nothing is copied, and only the columns and events it needs are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from manent.adapters.analysis.arrow import EVENTS, log_columns, record_batch
from manent.adapters.analysis.narrowing import narrowed
from manent.domain.records import EventFilter
from manent.domain.usecases.export_events import Row

Pages = Callable[[EventFilter, Sequence[str]], Iterator[Sequence[Row]]]
"""Reads the log: which events, which of its columns (the position first)."""


class LogDataset(ds.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """A ``pyarrow.dataset.Dataset`` whose scans read pages of the log; each scan is a new reading.

    DuckDB asks a dataset for a scanner of some columns under some filter, and trusts it to apply the filter.
    """

    def __init__(self, pages: Pages, wanted: EventFilter) -> None:
        # The base class refuses to be made by hand. Its constructor is not called, and only what stands here is used.
        self._pages = pages
        self._wanted = wanted

    @property
    def schema(self) -> pa.Schema:
        """The table's columns."""
        return EVENTS

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: ds.Expression | None = None,  # noqa: A002 (pyarrow's name)
        **_options: Any,
    ) -> Reading:
        """A reading of ``columns`` of the events that match ``filter``."""
        chosen = EVENTS.names if columns is None else columns
        condition = "" if filter is None else str(filter)
        # A column that only the filter names is read too. A name that merely occurs in a text costs a column more.
        needed = {"position", *chosen, *(name for name in EVENTS.names if name in condition)}
        schema = pa.schema([field for field in EVENTS if field.name in needed])
        pages = self._pages(narrowed(self._wanted, condition), log_columns(schema))
        return Reading(pages, schema, list(chosen), filter)


class Reading:
    """One scan. It stands in for a ``pyarrow.dataset.Scanner``, which would read ahead in threads of Arrow's own.

    Such a thread may still be in Python when a query that needs no more of it has ended, and then the process never
    does: Arrow waits at its end for a thread that the interpreter has stopped.
    """

    def __init__(
        self, pages: Iterator[Sequence[Row]], schema: pa.Schema, columns: list[str], condition: ds.Expression | None
    ) -> None:
        self._pages = pages
        self._schema = schema
        self._columns = columns
        self._condition = condition

    @property
    def projected_schema(self) -> pa.Schema:
        """The columns of what is read."""
        return pa.schema([self._schema.field(name) for name in self._columns])

    def to_reader(self) -> pa.RecordBatchReader:
        """What is read, one batch a page, by whoever asks for the next."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for rows in self._pages:
            batch = record_batch(rows, self._schema)
            if self._condition is not None:
                batch = batch.filter(self._condition)
            yield batch.select(self._columns)
