"""Events as a Parquet file, written while the next ones are read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from manent.adapters.analysis.arrow import EVENTS, log_columns, record_batch
from manent.domain.usecases.export_events import Exported, Row

ROW_GROUP_EVENTS = 65_536
ROW_GROUP_BYTES = 32 * 1024 * 1024
# Few values, over and over: the others are all different, and a dictionary of them would only be thrown away.
REPEATED = ["type", "tenant", "actor", "stream_id", "request_id", "correlation_id", "causation_id", "log_id"]
# What readers skip row groups by; hashes and texts tell them nothing.
SKIPPED_BY = ["position", "recorded_at", "type", "tenant", "actor", "stream_id", "stream_version"]
LOG_POSITION = "manent.log_position"


class ParquetSink:
    """Implements ``EventSink``. A row group is compressed in a thread of its own, without the interpreter's lock."""

    columns: Sequence[str] = log_columns(EVENTS)

    def __init__(self, file: IO[bytes]) -> None:
        self._writer = pq.ParquetWriter(
            file,
            EVENTS,
            compression="zstd",
            compression_level=1,
            use_dictionary=REPEATED,
            write_statistics=SKIPPED_BY,
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="parquet")
        self._writing: asyncio.Future[None] | None = None
        self._group: list[pa.RecordBatch] = []
        self._events = 0
        self._bytes = 0

    async def write(self, rows: Sequence[Row]) -> None:
        """See ``EventSink.write``."""
        batch = record_batch(rows, EVENTS)
        self._group.append(batch)
        self._events += batch.num_rows
        self._bytes += batch.nbytes
        if self._events >= ROW_GROUP_EVENTS or self._bytes >= ROW_GROUP_BYTES:
            await self._write_group()

    async def finish(self, exported: Exported) -> None:
        """Write what is left and the end of the file; without it the file is none."""
        await self._write_group()
        await self._written()
        self._writer.add_key_value_metadata({LOG_POSITION: str(exported.log_position)})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.close)

    async def aclose(self) -> None:
        """Stop; what was written is a file only if it was finished."""
        with suppress(OSError, ValueError, pa.ArrowException):
            await self._written()
        with suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()
        self._thread.shutdown()

    async def _write_group(self) -> None:
        await self._written()
        table = pa.Table.from_batches(self._group, EVENTS)
        self._group, self._events, self._bytes = [], 0, 0
        if table.num_rows:
            self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, table)

    def _write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=table.num_rows)

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing
