"""Workers of subscriptions: events in order from a checkpoint, to one worker at a time, at least once each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from manent.domain.errors import DomainError, LeaseLost, ShuttingDown, StoreUnavailable
from manent.domain.ports import Clock
from manent.domain.records import EventFilter, LogEntry
from manent.domain.subscriptions import HeldBy, Lease, SubscriptionStore
from manent.domain.usecases.follow_log import Tail
from manent.domain.usecases.log_reader import LogReader

Handler = Callable[[Sequence[LogEntry], Lease], Awaitable[None]]
"""Processes a page. What it did is done again where the worker ends before the checkpoint is written, so it must be
idempotent by position; a target that can compare ``lease.token`` can also refuse a stale worker."""

RELEASE_S = 2.0

_log = logging.getLogger("manent.subscriptions")


class SubscriptionStalled(DomainError):
    """The handler failed on the same events as often as the bound allows; somebody has to look at why."""

    code = "subscription_stalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionLimits:
    """Bounds on a worker.

    ``ttl_s`` is how long a lease lasts without a word, and so the longest that a handler may take for a page.
    ``retry_s`` is the first wait after a failure and between looks at a lease that another worker holds; it doubles
    with each failure in a row, up to a third of ``ttl_s``.
    """

    ttl_s: float = 30.0
    attempts_max: int = 5
    retry_s: float = 0.5


async def run_subscription(
    name: str,
    handler: Handler,
    *,
    reader: LogReader,
    subscriptions: SubscriptionStore,
    clock: Clock,
    owner: str,
    event_filter: EventFilter | None = None,
    limits: SubscriptionLimits | None = None,
) -> None:
    """Hand every matching event behind the checkpoint ``name`` to ``handler``, until the log closes or it is cancelled.

    ``owner`` names this worker among all of them. While another worker holds the lease this one stands by. A
    database that is away is waited for; a handler that keeps failing is not.

    Raises:
        SubscriptionStalled: the handler failed ``attempts_max`` times in a row; the checkpoint stands before it.
    """
    worker = _Worker(
        name=name,
        handler=handler,
        reader=reader,
        subscriptions=subscriptions,
        clock=clock,
        limits=limits or SubscriptionLimits(),
    )
    failures, position = 0, 0
    while not reader.signal.closed:
        try:
            found = await subscriptions.acquire(name, owner=owner, ttl_s=worker.limits.ttl_s)
            if isinstance(found, HeldBy):
                await clock.sleep(worker.limits.retry_s)
                continue
            if found.position > position:  # only progress ends a row of failures
                failures, position = 0, found.position
            await worker.work(found, event_filter or EventFilter())
        except ShuttingDown:
            return
        except LeaseLost as lost:
            _log.warning("%s", lost.message)
        except StoreUnavailable as error:
            failures += 1
            _log.warning("subscription %s waits for the database: %s", name, error.message)
            await clock.sleep(worker.backoff_s(failures))


@dataclass(slots=True, kw_only=True)
class _Worker:
    name: str
    handler: Handler
    reader: LogReader
    subscriptions: SubscriptionStore
    clock: Clock
    limits: SubscriptionLimits
    _granted_s: float = 0.0

    def backoff_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        doubled: float = self.limits.retry_s * 2 ** (failures - 1)
        return min(doubled, self.limits.ttl_s / 3)

    async def work(self, lease: Lease, event_filter: EventFilter) -> None:
        """Process pages for as long as ``lease`` can be kept, and give it up at the end, whatever ends it."""
        self._granted()
        tail = Tail(self.reader, event_filter, after=lease.position)
        try:
            while True:
                page = await tail.next(self.limits.ttl_s / 3)
                if not page or self._is_half_over():
                    lease = await self._renewed(lease)
                if page:
                    lease = await self._handled(page, lease)
        finally:
            with suppress(DomainError, TimeoutError):
                async with asyncio.timeout(RELEASE_S):
                    await self.subscriptions.release(lease)

    async def _handled(self, page: Sequence[LogEntry], lease: Lease) -> Lease:
        """Have ``page`` processed, again after a failure, and move the checkpoint behind it."""
        first, last = page[0].header.position, page[-1].header.position
        for attempt in range(1, self.limits.attempts_max + 1):
            try:
                async with asyncio.timeout_at(self._deadline_s()):
                    await self.handler(page, lease)
                break
            except LeaseLost:
                raise
            except Exception as error:  # a handler's failures are its own: counted, and told at the end
                kind = type(error).__name__
                _log.warning("subscription %s failed at %d to %d: %s", self.name, first, last, kind)
                if attempt == self.limits.attempts_max:
                    raise SubscriptionStalled(
                        f"subscription {self.name!r} failed {attempt} times at positions {first} to {last}: {kind}"
                    ) from error
                await self.clock.sleep(self.backoff_s(attempt))
                lease = await self._renewed(lease)
        self._granted()
        return await self.subscriptions.advance(lease, last)

    async def _renewed(self, lease: Lease) -> Lease:
        self._granted()
        return await self.subscriptions.renew(lease)

    def _granted(self) -> None:
        """Count the lease's time from before it was asked for, by a clock that nobody sets."""
        self._granted_s = asyncio.get_running_loop().time()

    def _is_half_over(self) -> bool:
        return asyncio.get_running_loop().time() > self._granted_s + self.limits.ttl_s / 2

    def _deadline_s(self) -> float:
        """A handler is stopped before the lease could be another worker's."""
        return self._granted_s + self.limits.ttl_s * 0.9
