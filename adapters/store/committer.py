"""Group commit: what gathers while one transaction commits goes into the next, each append judged on its own."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from manent.adapters.store.batch import AppendRequest
from manent.domain.errors import DomainError, StoreUnavailable
from manent.domain.records import Appended
from manent.domain.telemetry import NO_TELEMETRY, Telemetry

Verdicts = Sequence[Appended | DomainError]


class BatchRefused(Exception):
    """The database refused the transaction as a whole; nothing of it was committed.

    Attributes:
        retry_alone: whether single appends of the batch may fare better (one of them is poisoned, say).
    """

    def __init__(self, reason: str, *, retry_alone: bool) -> None:
        super().__init__(reason)
        self.retry_alone = retry_alone


class BatchWriter(Protocol):
    """A database's part: judge the requests in order, and commit what was admitted in one transaction."""

    async def write(self, requests: Sequence[AppendRequest]) -> Verdicts:
        """One verdict for each request, after the commit.

        Raises:
            BatchRefused: nothing was committed.
        """
        ...

    async def aclose(self) -> None:
        """Give the connection back."""
        ...


_Waiting = tuple[AppendRequest, asyncio.Future[Appended]]
"""An append, and what its caller waits for. A caller that is cancelled cancels the wait alone."""

_log = logging.getLogger("manent.store")

CLOSE_S = 3.0
REFUSAL_REMEMBERED_S = 10.0


class Committer:
    """The one writer of a process to a database. Belongs to one event loop.

    A lone append commits at once: a batch is what has gathered while the last one was committing. The queue is
    bounded by appends and by bytes (of about as much again is the batch that is committing made); beyond that an append
    is refused with a wait. An append that is larger than the bound by itself waits alone. A caller that is cancelled
    leaves its append in the batch: it commits or fails as if the caller were there.
    """

    def __init__(
        self,
        writer: BatchWriter,
        *,
        waiting_max: int = 4096,
        waiting_bytes_max: int = 64 * 1024 * 1024,
        batch_max: int = 512,
    ) -> None:
        self._writer = writer
        self._waiting_max = waiting_max
        self._waiting_bytes_max = waiting_bytes_max
        self._batch_max = batch_max
        self._waiting_bytes = 0
        self._waiting: deque[_Waiting] = deque()
        self._committing: asyncio.Task[None] | None = None
        self._closed = False
        self._refused: tuple[str, float] | None = None
        self._observers: list[Callable[[int | None], None]] = []
        self.telemetry: Telemetry = NO_TELEMETRY

    @property
    def waiting(self) -> int:
        """How many appends wait for the next batch."""
        return len(self._waiting)

    def check_writable(self) -> None:
        """Raise StoreUnavailable for some seconds after the database refused, unless something was committed since."""
        if self._refused is None:
            return
        reason, refused_at_s = self._refused
        if asyncio.get_running_loop().time() - refused_at_s < REFUSAL_REMEMBERED_S:
            raise StoreUnavailable(reason)

    async def append(self, request: AppendRequest) -> Appended:
        """Commit ``request`` with whatever else has gathered.

        Raises:
            VersionConflict, IdempotencyConflict: the verdict on this append.
            StoreUnavailable: the queue is full, the store is closed, or the database refused.
        """
        if self._closed:
            raise StoreUnavailable("the event store is closed")
        waiting_bytes = self._waiting_bytes + request.size_bytes
        if len(self._waiting) >= self._waiting_max or (waiting_bytes > self._waiting_bytes_max and self._waiting):
            raise StoreUnavailable(
                f"{len(self._waiting)} appends of {self._waiting_bytes} bytes are waiting for the database already"
            )
        loop = asyncio.get_running_loop()
        verdict: asyncio.Future[Appended] = loop.create_future()
        self._waiting.append((request, verdict))
        self._waiting_bytes = waiting_bytes
        if self._committing is None:
            self._committing = loop.create_task(self._commit_all(), name="committer")
        return await verdict

    def observe(self, observer: Callable[[int | None], None]) -> None:
        """See ``EventStore.observe``."""
        self._observers.append(observer)

    def announce(self, position: int | None) -> None:
        """Tell the observers of a commit, by whomever; None where its position is not known."""
        for observer in self._observers:
            observer(position)

    async def aclose(self) -> None:
        """Commit what waits, then close the writer; nothing is accepted from now on.

        A database that does not take what waits within ``CLOSE_S`` is waited for no longer: its callers are refused.
        """
        self._closed = True
        if self._committing is not None:
            await asyncio.wait({self._committing}, timeout=CLOSE_S)
        while self._waiting:
            _tell(self._next()[1], StoreUnavailable("the event store was closed"))
        if self._committing is not None:
            await asyncio.wait({self._committing}, timeout=CLOSE_S)
        await self._writer.aclose()

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                batch = [self._next() for _ in range(min(len(self._waiting), self._batch_max))]
                await self._commit(batch)
        finally:
            self._committing = None

    def _next(self) -> _Waiting:
        waiting = self._waiting.popleft()
        self._waiting_bytes -= waiting[0].size_bytes
        return waiting

    async def _commit(self, batch: list[_Waiting]) -> None:
        began_s, is_refused = monotonic(), False
        try:
            verdicts = await self._writer.write([request for request, _ in batch])
        except BatchRefused as refused:
            if len(batch) > 1 and refused.retry_alone:
                for waiting in batch:
                    await self._commit([waiting])
                return
            self._refused, is_refused = (str(refused), asyncio.get_running_loop().time()), True
            verdicts = [StoreUnavailable(str(refused)) for _ in batch]
        except Exception as error:  # noqa: BLE001 (a defect of the writer must reach every caller, not hang them)
            _log.exception("the committer failed")
            is_refused = True
            verdicts = [StoreUnavailable(f"the committer failed ({type(error).__name__})") for _ in batch]
        self.telemetry.committed(len(batch), monotonic() - began_s, refused=is_refused)
        for (_, future), verdict in zip(batch, verdicts, strict=True):
            _tell(future, verdict)
        landed = [verdict.position for verdict in verdicts if isinstance(verdict, Appended)]
        if landed:
            self._refused = None
            self.announce(max(landed))


def _tell(future: asyncio.Future[Appended], verdict: Appended | DomainError) -> None:
    if future.done():
        return  # its caller was cancelled: the verdict is nobody's news
    if isinstance(verdict, DomainError):
        future.set_exception(verdict)
    else:
        future.set_result(verdict)
