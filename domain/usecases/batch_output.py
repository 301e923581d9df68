"""The files that a batch puts out: written piece by piece under the worker's lease, and recorded once it is whole."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from manent.domain.batch_events import FileAdded, file_stream
from manent.domain.batch_work import LineAnswer
from manent.domain.batches import BatchState, Written
from manent.domain.errors import VersionConflict
from manent.domain.files import BATCH_OUTPUT, CHUNK_BYTES, FileContent
from manent.domain.ports import Clock, EventStore
from manent.domain.records import EventContext
from manent.domain.subscriptions import Lease

_log = logging.getLogger("manent.batches")


@dataclass(slots=True)
class Answers:
    """What is answered and not yet recorded."""

    lines: list[int] = field(default_factory=list)
    output: list[bytes] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, number: int, answer: LineAnswer) -> None:
        """Take the answer to a line."""
        self.lines.append(number)
        (self.output if answer.succeeded else self.errors).append(answer.line)
        self.size_bytes += len(answer.line)


class BatchOutput:
    """Writes the output and error files of a batch, for as long as ``lease`` is held."""

    def __init__(self, content: FileContent, store: EventStore, clock: Clock, lease: Lease) -> None:
        self._content = content
        self._store = store
        self._clock = clock
        self._lease = lease

    async def drop_uncounted(self, state: BatchState) -> None:
        """Destroy the pieces that no event counts: those of a worker that ended before it recorded them."""
        created = state.created
        for file_id, written in ((created.output_file_id, state.output), (created.error_file_id, state.errors)):
            await self._content.drop(state.tenant, file_id, first=written.chunks, lease=self._lease)

    async def put(self, tenant: str, file_id: str, before: Written, lines: Sequence[bytes]) -> Written:
        """Write ``lines`` behind what is there; how much it is.

        Raises:
            LeaseLost: another worker has the batch.
        """
        data = b"".join(lines)
        pieces = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        for number, piece in enumerate(pieces, start=before.chunks):
            try:
                await self._content.put(tenant, file_id, number, piece, lease=self._lease)
            except VersionConflict:  # of a worker that lost the batch while it wrote: no event counts it
                await self._content.drop(tenant, file_id, first=number, lease=self._lease)
                await self._content.put(tenant, file_id, number, piece, lease=self._lease)
        return Written(chunks=len(pieces), size_bytes=len(data))

    async def close(self, state: BatchState, context: EventContext) -> None:
        """Record the files, where they have a line; a worker before may have."""
        created = state.created
        await self._close(state, created.output_file_id, "output", state.output, context)
        await self._close(state, created.error_file_id, "error", state.errors, context)

    async def _close(self, state: BatchState, file_id: str, kind: str, written: Written, context: EventContext) -> None:
        if not written.chunks:
            return
        digest, size_bytes = hashlib.sha256(), 0
        for number in range(written.chunks):
            data = await self._content.read(state.tenant, file_id, number) or b""
            digest.update(data)
            size_bytes += len(data)
        if size_bytes != written.size_bytes:
            _log.error("file %s has %d bytes where %d were recorded", file_id, size_bytes, written.size_bytes)
        now_us, keep_s = self._clock.now_us(), state.created.output_expires_after_s
        added = FileAdded(
            file_id=file_id,
            owner=state.created.owner,
            filename=f"{state.created.batch_id}_{kind}.jsonl",
            purpose=BATCH_OUTPUT,
            size_bytes=size_bytes,
            sha256=digest.hexdigest(),
            chunks=written.chunks,
            expires_at_us=None if keep_s is None else now_us + keep_s * 1_000_000,
            added_at_us=now_us,
        )
        with suppress(VersionConflict):
            await self._store.append(file_stream(file_id), [added], expected_version=0, context=context)
