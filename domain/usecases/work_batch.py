"""One batch, worked off: its input looked at, its lines answered and recorded in groups, its files closed.

What is answered lies in the files' pieces before the event that counts it, and pieces that no event counts are
destroyed when a worker begins: every line is answered once, whenever a worker dies. A line whose completion was
recorded, and whose own event was not, is asked for again with the same idempotency key, and is not generated again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from manent.domain.access_errors import InvalidCredential
from manent.domain.batch_events import BatchEvent, BatchLinesEnded, BatchMistake, BatchTaken, FileAdded, file_stream
from manent.domain.batch_work import BatchRequests, Line, LineAnswer
from manent.domain.batches import (
    BatchState,
    BatchStatus,
    Written,
    decide_end,
    decide_finalize,
    decide_refuse,
    decide_validated,
)
from manent.domain.errors import DomainError, LeaseLost, PermissionDenied, VersionConflict
from manent.domain.files import BATCH_OUTPUT, CHUNK_BYTES, FileContent, FileKept, FileNotFound
from manent.domain.ports import Clock, EventStore
from manent.domain.records import EventContext
from manent.domain.subscriptions import Lease
from manent.domain.usecases.batch_grants import BatchGrants
from manent.domain.usecases.batch_records import BatchRecords, Decide
from manent.domain.usecases.check_batch import Checked, check_input
from manent.domain.usecases.file_lines import file_lines
from manent.domain.usecases.manage_files import ManageFiles

LINES_AT_ONCE = 64
GROUP_BYTES = 4 * CHUNK_BYTES
UNTRIED_AT_ONCE = 1000
ATTEMPTS_MAX = 5
AGAIN_FIRST_S = 0.5
AGAIN_MAX_S = 30.0
EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")

_log = logging.getLogger("manent.batches")


class _Stopped(Exception):
    """No further line is to be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPorts:
    """What a worker works with. ``slots`` are the lines that are tried at once, of all batches of a server."""

    store: EventStore
    records: BatchRecords
    files: ManageFiles
    content: FileContent
    requests: BatchRequests
    grants: BatchGrants
    clock: Clock
    slots: asyncio.Semaphore
    flush_s: float = 1.0


@dataclass(slots=True)
class _Answers:
    """What is answered and not yet recorded."""

    lines: list[int] = field(default_factory=list)
    output: list[bytes] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, number: int, answer: LineAnswer) -> None:
        self.lines.append(number)
        (self.output if answer.succeeded else self.errors).append(answer.line)
        self.size_bytes += len(answer.line)


class BatchWorker:
    """Works on one batch, as the only one, for as long as it has the lease; its name stands in the log."""

    def __init__(self, ports: BatchPorts, state: BatchState, lease: Lease) -> None:
        self._ports = ports
        self._state = state
        self._lease = lease
        self._name = f"{lease.owner} {lease.token}"
        self._answers = _Answers()
        self._look = asyncio.Event()
        self._all_tried = False
        self._context = EventContext(tenant=state.tenant, actor="manent", correlation_id=state.created.batch_id)

    async def run(self) -> None:
        """Work until the batch is over.

        Raises:
            LeaseLost: another worker has the batch.
            DomainError: it cannot go on now; another worker, or this one's next life, goes on later.
        """
        ports, created = self._ports, self._state.created
        batch_id, now_us = created.batch_id, ports.clock.now_us()
        taken = BatchTaken(batch_id=batch_id, worker=self._name, taken_at_us=now_us)
        self._state = await ports.records.record(
            self._state, lambda state: [] if state.is_over else [taken], self._context
        )
        if self._state.is_over:
            return
        files = (created.output_file_id, self._state.output), (created.error_file_id, self._state.errors)
        for file_id, written in files:
            await ports.content.drop(self._state.tenant, file_id, first=written.chunks, lease=self._lease)
        while not self._state.is_over:
            match self._state.status:
                case BatchStatus.VALIDATING:
                    await self._validate()
                case BatchStatus.IN_PROGRESS:
                    await self._try_lines()
                case _:
                    await self._finish()

    async def _record(self, decide: Decide) -> None:
        """Append what is decided, unless another worker has the batch."""

        def decide_as_worker(state: BatchState) -> Sequence[BatchEvent]:
            if state.worker != self._name:
                raise LeaseLost(f"batch {state.created.batch_id} has another worker")
            return decide(state)

        self._state = await self._ports.records.record(self._state, decide_as_worker, self._context)

    async def _validate(self) -> None:
        kept = await self._input()
        if kept is None:
            return
        try:
            principal = await self._ports.grants.principal(self._state)
            checked = await check_input(self._state, kept, principal, self._ports.files, self._ports.requests)
        except (InvalidCredential, PermissionDenied) as error:
            checked = Checked()
            checked.add(error.code, error.message)
        now_us = self._ports.clock.now_us()
        if checked.mistakes:
            await self._record(lambda state: decide_refuse(state, tuple(checked.mistakes), now_us=now_us))
        else:
            await self._record(lambda state: decide_validated(state, total=checked.total, now_us=now_us))
        self._state = await self._ports.records.load(self._state.tenant, self._state.created.batch_id)

    async def _input(self) -> FileKept | None:
        """The input file; a batch whose input was deleted fails."""
        created = self._state.created
        try:
            return await self._ports.files.get(self._state.principal, created.input_file_id)
        except FileNotFound as error:
            gone = BatchMistake(code=error.code, message=f"the input file {created.input_file_id} is no more")
            now_us = self._ports.clock.now_us()
            await self._record(lambda state: decide_refuse(state, (gone,), now_us=now_us))
            self._state = await self._ports.records.load(self._state.tenant, created.batch_id)
            return None

    async def _try_lines(self) -> None:
        """Answer what is not answered, until all is, the window closes, or the batch is called off."""
        kept = await self._input()
        if kept is None:
            return
        self._all_tried = False
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_flushing())
                async with asyncio.TaskGroup() as lines:
                    await self._begin_lines(kept, lines)
                self._all_tried = True
                self._look.set()
        except* _Stopped:
            pass
        except* DomainError as errors:
            raise errors.exceptions[0] from None
        await self._flush()
        now_us = self._ports.clock.now_us()
        await self._record(lambda state: decide_finalize(state, now_us=now_us))

    async def _begin_lines(self, kept: FileKept, group: asyncio.TaskGroup) -> None:
        async with aclosing(self._lines(kept)) as lines:
            async for line in lines:
                await self._ports.slots.acquire()
                group.create_task(self._try(line)).add_done_callback(lambda _: self._ports.slots.release())

    async def _lines(self, kept: FileKept) -> AsyncGenerator[Line, None]:
        """The lines of the input that have no answer on record."""
        created = self._state.created
        async with aclosing(self._ports.files.read(kept)) as pieces, aclosing(file_lines(pieces)) as lines:
            async for number, raw in lines:
                if not self._state.is_done(number):
                    yield Line(batch_id=created.batch_id, endpoint=created.endpoint, number=number, raw=raw)

    async def _try(self, line: Line) -> None:
        """Have a line answered, again where its failure may pass."""
        failures = 0
        while True:
            answer = await self._answer(line)
            if not answer.again:
                break
            failures += 1
            if failures >= ATTEMPTS_MAX and not answer.patient:
                break
            wait_s = AGAIN_FIRST_S * 2 ** min(failures - 1, 10)
            await self._ports.clock.sleep(min(max(wait_s, answer.retry_after_s or 0), AGAIN_MAX_S))
        self._answers.add(line.number, answer)
        if len(self._answers.lines) >= LINES_AT_ONCE or self._answers.size_bytes >= GROUP_BYTES:
            self._look.set()

    async def _answer(self, line: Line) -> LineAnswer:
        """What the server says to it, in the name of whoever made the batch, if they may still come."""
        try:
            principal = await self._ports.grants.principal(self._state)
        except (InvalidCredential, PermissionDenied) as error:
            return self._ports.requests.failed(line, error)
        return await self._ports.requests.answer(line, principal)

    async def _keep_flushing(self) -> None:
        """Record what gathers, and look whether to go on, until every line was tried."""
        while not self._all_tried:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ports.flush_s):
                    await self._look.wait()
            self._look.clear()
            await self._flush()
            state = await self._ports.records.load(self._state.tenant, self._state.created.batch_id)
            if state.worker != self._name:
                raise LeaseLost(f"batch {state.created.batch_id} has another worker")
            if state.status is not BatchStatus.IN_PROGRESS or state.has_expired(self._ports.clock.now_us()):
                self._state = state
                raise _Stopped

    async def _flush(self) -> None:
        """Write what is answered, and record it."""
        if self._answers.lines:
            answers, self._answers = self._answers, _Answers()
            await self._write(answers)

    async def _write(self, answers: _Answers) -> None:
        created, state = self._state.created, self._state
        output = await self._put(created.output_file_id, state.output, answers.output)
        errors = await self._put(created.error_file_id, state.errors, answers.errors)
        ended = BatchLinesEnded(
            batch_id=created.batch_id,
            lines=tuple(answers.lines),
            completed=len(answers.output),
            output_chunks=output.chunks,
            output_bytes=output.size_bytes,
            error_chunks=errors.chunks,
            error_bytes=errors.size_bytes,
            ended_at_us=self._ports.clock.now_us(),
        )
        await self._record(lambda _: [ended])

    async def _put(self, file_id: str, before: Written, lines: Sequence[bytes]) -> Written:
        """Write ``lines`` behind what is there; how much it is."""
        data, tenant, content = b"".join(lines), self._state.tenant, self._ports.content
        pieces = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        for number, piece in enumerate(pieces, start=before.chunks):
            try:
                await content.put(tenant, file_id, number, piece, lease=self._lease)
            except VersionConflict:  # of a worker that lost the batch while it wrote: no event counts it
                await content.drop(tenant, file_id, first=number, lease=self._lease)
                await content.put(tenant, file_id, number, piece, lease=self._lease)
        return Written(chunks=len(pieces), size_bytes=len(data))

    async def _finish(self) -> None:
        """Say of what was left that it was, close the files, and end the batch."""
        state, created = self._state, self._state.created
        if state.expired and state.completed + state.failed < state.total:
            await self._leave_the_rest()
        expires_after_s = created.output_expires_after_s
        await self._close(created.output_file_id, "output", self._state.output, expires_after_s)
        await self._close(created.error_file_id, "error", self._state.errors, expires_after_s)
        now_us = self._ports.clock.now_us()
        await self._record(lambda seen: decide_end(seen, now_us=now_us))
        _log.info("batch %s is %s", created.batch_id, self._state.status)

    async def _leave_the_rest(self) -> None:
        with suppress(FileNotFound):
            kept = await self._ports.files.get(self._state.principal, self._state.created.input_file_id)
            async with aclosing(self._lines(kept)) as lines:
                async for line in lines:
                    self._answers.add(line.number, self._ports.requests.unanswered(line, *EXPIRED))
                    if len(self._answers.lines) >= UNTRIED_AT_ONCE:
                        await self._flush()
            await self._flush()

    async def _close(self, file_id: str, kind: str, written: Written, expires_after_s: int | None) -> None:
        """Record the file of what was written; an earlier worker may have."""
        if not written.chunks:
            return
        tenant, digest, size_bytes = self._state.tenant, hashlib.sha256(), 0
        for number in range(written.chunks):
            data = await self._ports.content.read(tenant, file_id, number) or b""
            digest.update(data)
            size_bytes += len(data)
        if size_bytes != written.size_bytes:
            _log.error("file %s has %d bytes where %d were recorded", file_id, size_bytes, written.size_bytes)
        now_us = self._ports.clock.now_us()
        added = FileAdded(
            file_id=file_id,
            owner=self._state.created.owner,
            filename=f"{self._state.created.batch_id}_{kind}.jsonl",
            purpose=BATCH_OUTPUT,
            size_bytes=size_bytes,
            sha256=digest.hexdigest(),
            chunks=written.chunks,
            expires_at_us=None if expires_after_s is None else now_us + expires_after_s * 1_000_000,
            added_at_us=now_us,
        )
        with suppress(VersionConflict):
            await self._ports.store.append(file_stream(file_id), [added], expected_version=0, context=self._context)
