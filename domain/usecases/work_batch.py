"""One batch, worked off: its input looked at, its lines answered and recorded in groups, its files closed.

What is answered lies in the files' pieces before the event that counts it, and pieces that no event counts are
destroyed when a worker begins: every line is answered once, whenever a worker dies. A line whose completion was
recorded, and whose own event was not, is asked for again with the same idempotency key, and is not generated again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from manent.domain.access_errors import InvalidCredential
from manent.domain.batch_events import BatchEvent, BatchLinesEnded, BatchMistake, BatchTaken
from manent.domain.batch_work import BatchRequests, Line, LineAnswer
from manent.domain.batches import (
    BatchState,
    BatchStatus,
    decide_end,
    decide_finalize,
    decide_refuse,
    decide_validated,
)
from manent.domain.errors import DomainError, LeaseLost, LogCorrupt, PermissionDenied
from manent.domain.files import CHUNK_BYTES, FileContent, FileKept, FileNotFound
from manent.domain.ports import Clock, EventStore
from manent.domain.records import EventContext
from manent.domain.subscriptions import Lease
from manent.domain.usecases.batch_grants import BatchGrants
from manent.domain.usecases.batch_output import Answers, BatchOutput
from manent.domain.usecases.batch_records import BatchRecords, Decide
from manent.domain.usecases.check_batch import Checked, check_input
from manent.domain.usecases.file_lines import file_lines
from manent.domain.usecases.manage_files import ManageFiles
from manent.domain.waiting import set_within

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
    """What a worker works with. ``slots`` are the lines that are tried at once, of all batches of a server.

    ``lines_max`` are those of one batch that are begun: also those that wait to be tried again, without a slot.
    """

    store: EventStore
    records: BatchRecords
    files: ManageFiles
    content: FileContent
    requests: BatchRequests
    grants: BatchGrants
    clock: Clock
    slots: asyncio.Semaphore
    lines_max: int
    flush_s: float = 1.0


class BatchWorker:
    """Works on one batch, as the only one, for as long as it has the lease; its name stands in the log."""

    def __init__(self, ports: BatchPorts, state: BatchState, lease: Lease) -> None:
        self._ports = ports
        self._state = state
        self._output = BatchOutput(ports.content, ports.store, ports.clock, lease)
        self._name = f"{lease.owner} {lease.token}"
        self._answers = Answers()
        self._begun = asyncio.Semaphore(ports.lines_max)
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
        await self._output.drop_uncounted(self._state)
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
        try:
            kept = await self._input()
            principal = await self._ports.grants.principal(self._state)
            checked = await check_input(self._state, kept, principal, self._ports.files, self._ports.requests)
        except (FileNotFound, InvalidCredential, LogCorrupt, PermissionDenied) as error:
            checked, why = Checked(), await self._why(error)
            checked.add(why.code, why.message)
        now_us = self._ports.clock.now_us()
        if checked.mistakes:
            await self._record(lambda state: decide_refuse(state, tuple(checked.mistakes), now_us=now_us))
        else:
            await self._record(lambda state: decide_validated(state, total=checked.total, now_us=now_us))

    async def _input(self) -> FileKept:
        return await self._ports.files.get(self._state.principal, self._state.created.input_file_id)

    async def _why(self, error: DomainError) -> DomainError:
        """What keeps the input from being read: bytes that are missing are no damage where the file was deleted."""
        try:
            await self._input()
        except FileNotFound as gone:
            return gone
        return error

    async def _try_lines(self) -> None:
        """Answer what is not answered, until all is, the window closes, or the batch is called off.

        A batch whose input is deleted or damaged meanwhile fails, with what is answered.
        """
        failure: BaseException | None = None
        damage: LogCorrupt | None = None
        try:
            kept = await self._input()
        except FileNotFound as error:
            await self._end(BatchMistake(code=error.code, message=error.message))
            return
        self._all_tried = False
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_flushing())
                async with asyncio.TaskGroup() as lines:
                    damage = await self._begin_lines(kept, lines)
                self._all_tried = True
                self._look.set()
        except* _Stopped:
            pass
        except* DomainError as errors:
            failure = _first_of(errors)
        if failure is not None:
            raise failure
        await self._flush()
        if damage is not None:
            why = await self._why(damage)
            await self._end(BatchMistake(code=why.code, message=why.message))
            return
        now_us = self._ports.clock.now_us()
        await self._record(lambda state: decide_finalize(state, now_us=now_us))

    async def _begin_lines(self, kept: FileKept, group: asyncio.TaskGroup) -> LogCorrupt | None:
        """Begin the lines as others end; what is wrong with the input, which those that are begun need not heed."""
        try:
            async with aclosing(self._lines(kept)) as lines:
                async for line in lines:
                    await self._begun.acquire()
                    group.create_task(self._try(line)).add_done_callback(lambda _: self._begun.release())
        except LogCorrupt as damage:
            return damage
        return None

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
            async with self._ports.slots:
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
            await set_within(self._look, self._ports.flush_s)
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
            answers, self._answers = self._answers, Answers()
            await self._write(answers)

    async def _write(self, answers: Answers) -> None:
        state, created = self._state, self._state.created
        output = await self._output.put(state.tenant, created.output_file_id, state.output, answers.output)
        errors = await self._output.put(state.tenant, created.error_file_id, state.errors, answers.errors)
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

    async def _finish(self) -> None:
        """Say of what was left that it was, close the files, and end the batch."""
        state = self._state
        if state.expired and state.completed + state.failed < state.total:
            await self._leave_the_rest()
        await self._end()

    async def _end(self, *mistakes: BatchMistake) -> None:
        await self._output.close(self._state, self._context)
        now_us = self._ports.clock.now_us()
        await self._record(lambda seen: decide_end(seen, mistakes, now_us=now_us))
        _log.info("batch %s is %s", self._state.created.batch_id, self._state.status)

    async def _leave_the_rest(self) -> None:
        with suppress(FileNotFound, LogCorrupt):
            kept = await self._input()
            async with aclosing(self._lines(kept)) as lines:
                async for line in lines:
                    self._answers.add(line.number, self._ports.requests.unanswered(line, *EXPIRED))
                    if len(self._answers.lines) >= UNTRIED_AT_ONCE:
                        await self._flush()
        await self._flush()


def _first_of(error: BaseException) -> BaseException:
    """The first of what several tasks failed with at once."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
