"""The work on all batches: every node looks for those that have not ended, and has each by a lease, as the only one."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from manent.domain.batch_work import WorkDirectory
from manent.domain.errors import DomainError, LeaseLost, StoreUnavailable
from manent.domain.ports import Ids
from manent.domain.subscriptions import HeldBy, Lease, SubscriptionStore
from manent.domain.usecases.work_batch import BatchPorts, BatchWorker
from manent.domain.waiting import set_within

LEASES = "batch/"
RELEASE_S = 2.0
FAILURES_MAX = 5
"""So often the rest of a batch doubles that cannot go on."""
LOOKED_AT_MAX = 1_000

_log = logging.getLogger("manent.batches")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Bounds: batches that a node works on at once, in all and of one owner; how long a lease lasts unheard of, and so
    how long a batch rests after a crash; the longest until a batch is seen that another process made.
    """

    at_once_max: int = 32
    of_owner_max: int = 4
    ttl_s: float = 15.0
    refresh_s: float = 2.0


class WorkBatches:
    """Works batches off for as long as a server runs."""

    def __init__(
        self,
        *,
        ports: BatchPorts,
        directory: WorkDirectory,
        subscriptions: SubscriptionStore,
        ids: Ids,
        limits: BatchLimits | None = None,
    ) -> None:
        self._ports = ports
        self._directory = directory
        self._subscriptions = subscriptions
        self._limits = limits or BatchLimits()
        self._owner = ids.new("node_")
        self._tasks: dict[tuple[str, str, str], asyncio.Task[None]] = {}
        self._failures: Counter[tuple[str, str]] = Counter()
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Look at once: this process made or called off a batch."""
        self._changed.set()

    async def run(self) -> None:
        """Work until this is cancelled."""
        try:
            while True:
                self._changed.clear()
                try:
                    await self._refresh()
                except StoreUnavailable as error:  # who works on a batch sees for themselves whether they can go on
                    _log.warning("batches that wait are not found: %s", error.message)
                await set_within(self._changed, self._limits.refresh_s)
        finally:
            await self._stop()

    async def _refresh(self) -> None:
        """Have workers for the batches that nobody works on, the oldest first, as many as may be."""
        self._tasks = {place: task for place, task in self._tasks.items() if not task.done()}
        if len(self._tasks) >= self._limits.at_once_max:
            return
        owners = Counter(place[:2] for place in self._tasks)
        for tenant, owner, batch_id in await self._directory.open_batches(limit=LOOKED_AT_MAX):
            if (tenant, owner, batch_id) in self._tasks or owners[tenant, owner] >= self._limits.of_owner_max:
                continue
            lease = await self._subscriptions.acquire(
                f"{LEASES}{batch_id}/{tenant}", owner=self._owner, ttl_s=self._limits.ttl_s
            )
            if isinstance(lease, HeldBy):
                continue
            work = self._work(tenant, batch_id, lease)
            owners[tenant, owner] += 1
            self._tasks[tenant, owner, batch_id] = asyncio.create_task(work, name=f"batch {batch_id}")
            if len(self._tasks) >= self._limits.at_once_max:
                return

    async def _work(self, tenant: str, batch_id: str, lease: Lease) -> None:
        """Work on a batch; what ends it before its end is logged, and the batch's turn comes again."""
        over, failed, place = False, False, (tenant, batch_id)
        try:
            state = await self._ports.records.load(tenant, batch_id)
            over = await self._held(BatchWorker(self._ports, state, lease), lease)
        except LeaseLost as lost:
            _log.warning("%s", lost.message)
        except DomainError as error:
            failed = True
            _log.warning("batch %s waits: %s", batch_id, error.message)
        except Exception:  # noqa: BLE001 (a defect in one batch must not end the others, nor pass in silence)
            failed = True
            _log.exception("the work on batch %s ended in a defect, and begins again", batch_id)
        finally:
            with suppress(DomainError, TimeoutError):
                async with asyncio.timeout(RELEASE_S):
                    await (self._subscriptions.forget(lease) if over else self._subscriptions.release(lease))
        if failed:
            self._failures[place] += 1
            await self._ports.clock.sleep(self._limits.refresh_s * 2 ** min(self._failures[place] - 1, FAILURES_MAX))
        if over:
            self._failures.pop(place, None)
            self._changed.set()  # there is room for the next

    async def _held(self, worker: BatchWorker, lease: Lease) -> bool:
        """Work for as long as the lease can be kept; True once the batch is over."""
        working = asyncio.create_task(worker.run())
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=self._limits.ttl_s / 3)
                if not working.done():
                    await self._subscriptions.renew(lease)
        finally:
            if not working.done():
                working.cancel()
                await asyncio.wait({working})
        await working
        return True

    async def _stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=RELEASE_S * 2)
