"""Deliveries: each webhook follows the log from its checkpoint, on one node at a time, and is sent what it wants.

A message that is not taken is tried again, later and later; what follows waits, since a webhook is sent its events in
their order. After the last attempt it is a dead letter, and the next has its turn. A crash forgets attempts, never
events: the checkpoint moves behind what was taken or recorded as a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from manent.domain.errors import DomainError, LeaseLost, ShuttingDown
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.records import EventContext, EventFilter, LogEntry
from manent.domain.subscriptions import HeldBy, Lease, SubscriptionStore
from manent.domain.usecases.dead_letters import DeadLetters
from manent.domain.usecases.follow_log import Tail
from manent.domain.usecases.log_reader import LogReader
from manent.domain.usecases.webhook_records import found_webhook, record_webhooks, tenant_webhooks
from manent.domain.waiting import set_within
from manent.domain.webhooks import SUBSCRIPTIONS, DeliveryFailed, Webhook, WebhookNotFound, retry_after_s

GONE = 410
OUTCOMES = ("taken", "failed", "abandoned")
RELEASE_S = 2.0

_log = logging.getLogger("manent.webhooks")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    """Bounds: attempts for a message; messages under way at once, of all webhooks; how long a lease lasts unheard of.

    Half of ``ttl_s`` is how long a message may take, and all of it how long deliveries rest after a crash.
    ``standby_s`` is the time between two looks at a webhook that another node delivers, ``refresh_s`` the longest
    until a change is seen that another process made.
    """

    attempts_max: int = 10
    at_once_max: int = 16
    ttl_s: float = 30.0
    standby_s: float = 5.0
    refresh_s: float = 2.0
    again_s: float = 5.0


class DeliverWebhooks:
    """Runs a worker for each enabled webhook of every tenant, for as long as a server runs.

    Where there is no webhook the log is not followed: a look at the checkpoints' names is all it costs.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        subscriptions: SubscriptionStore,
        reader: LogReader,
        letters: DeadLetters,
        clock: Clock,
        ids: Ids,
        limits: DeliveryLimits | None = None,
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._reader = reader
        self._letters = letters
        self._clock = clock
        self._ids = ids
        self._limits = limits or DeliveryLimits()
        self._owner = ids.new("node_")
        self._at_once = asyncio.Semaphore(self._limits.at_once_max)
        self._workers: dict[str, tuple[Webhook, asyncio.Task[None]]] = {}
        self._known: dict[str, tuple[dict[str, Webhook], int]] = {}
        self._changed = asyncio.Event()
        self.outcomes = Counter(dict.fromkeys(OUTCOMES, 0))
        """Attempts of this process by what became of them."""

    def changed(self) -> None:
        """Look at once: this process changed a webhook."""
        self._changed.set()

    async def run(self) -> None:
        """Deliver until this is cancelled."""
        try:
            while True:
                self._changed.clear()
                await self._refresh()
                await set_within(self._changed, self._limits.refresh_s)
        finally:
            await self._stop(list(self._workers))

    async def _refresh(self) -> None:
        """Have exactly the workers that the webhooks of all tenants call for."""
        names = await self._subscriptions.names(SUBSCRIPTIONS)
        wanted: dict[str, Webhook] = {}
        for tenant in sorted({name.split("/", 2)[2] for name in names}):
            webhooks, version = await tenant_webhooks(self._store, tenant, known=self._known.get(tenant))
            self._known[tenant] = webhooks, version
            wanted |= {webhook.subscription: webhook for webhook in webhooks.values() if webhook.enabled}
        workers = self._workers.items()
        await self._stop([name for name, (webhook, task) in workers if wanted.get(name) != webhook or task.done()])
        for name in wanted.keys() - self._workers.keys():
            worker = self._worker(wanted[name])
            self._workers[name] = wanted[name], asyncio.create_task(worker.run(), name=name)

    def _worker(self, webhook: Webhook) -> _Worker:
        return _Worker(
            webhook=webhook,
            store=self._store,
            subscriptions=self._subscriptions,
            reader=self._reader,
            letters=self._letters,
            clock=self._clock,
            chance=lambda: self._ids.seed() / 2**31,
            owner=self._owner,
            at_once=self._at_once,
            limits=self._limits,
            outcomes=self.outcomes,
        )

    async def _stop(self, names: list[str]) -> None:
        tasks = [self._workers.pop(name)[1] for name in names]
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                _log.error("the deliveries of a webhook ended in a defect", exc_info=outcome)


class _Disabled(Exception):
    """The receiver is gone; nothing more is sent to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    """One webhook's deliveries on this node."""

    webhook: Webhook
    store: EventStore
    subscriptions: SubscriptionStore
    reader: LogReader
    letters: DeadLetters
    clock: Clock
    chance: Callable[[], float]
    owner: str
    at_once: asyncio.Semaphore
    limits: DeliveryLimits
    outcomes: Counter[str]

    async def run(self) -> None:
        """Deliver until the log closes, or the webhook is disabled for being gone."""
        name = self.webhook.subscription
        while True:
            try:
                found = await self.subscriptions.acquire(name, owner=self.owner, ttl_s=self.limits.ttl_s)
                if isinstance(found, HeldBy):
                    await self.clock.sleep(self.limits.standby_s)
                    continue
                await self._work(found)
            except (ShuttingDown, _Disabled):
                return
            except LeaseLost as lost:
                _log.warning("%s", lost.message)
            except DomainError as error:
                _log.warning("deliveries to %s wait: %s", self.webhook.webhook_id, error.message)
                await self.clock.sleep(self.limits.again_s)

    async def _work(self, lease: Lease) -> None:
        """Deliver for as long as ``lease`` can be kept, and give it up at the end, whatever ends it."""
        tail = Tail(self.reader, EventFilter(tenant=self.webhook.tenant), after=lease.position)
        try:
            while True:
                page = await tail.next(self.limits.ttl_s / 3)
                for entry in page or ():
                    if self.webhook.wants(entry.header):
                        lease = await self._deliver(entry, lease)
                if self._is_half_over(lease):  # what nobody wants costs no write for itself
                    lease = await self.subscriptions.advance(lease, tail.position)
        finally:
            with suppress(DomainError, TimeoutError):
                async with asyncio.timeout(RELEASE_S):
                    await self.subscriptions.release(lease)

    async def _deliver(self, entry: LogEntry, lease: Lease) -> Lease:
        """Send one event until it is taken or given up, and move the checkpoint behind it."""
        for attempt in range(1, self.limits.attempts_max + 1):
            if self._is_half_over(lease):
                lease = await self.subscriptions.renew(lease)
            try:
                async with self.at_once:
                    await self.letters.send(entry, self.webhook)
                self.outcomes["taken"] += 1
                break
            except DeliveryFailed as failure:
                where = (self.webhook.webhook_id, entry.header.position, attempt, failure.message)
                _log.info("webhook %s did not take %d at attempt %d: %s", *where)
                self.outcomes["failed"] += 1
                if failure.status == GONE:
                    await self._disable("the receiver answered 410 Gone")
                    raise _Disabled from failure
                if attempt == self.limits.attempts_max:
                    await self.letters.abandon(self.webhook, entry, attempts=attempt, reason=failure.message)
                    self.outcomes["abandoned"] += 1
                    _log.warning("webhook %s has a dead letter: %d, after attempt %d: %s", *where)
                    break
                lease = await self._wait(retry_after_s(attempt, self.chance()), lease)
        return await self.subscriptions.advance(lease, entry.header.position)

    async def _wait(self, seconds: float, lease: Lease) -> Lease:
        """Let time pass, and keep the lease meanwhile."""
        while seconds > 0:
            step = min(seconds, self.limits.ttl_s / 3)
            await self.clock.sleep(step)
            seconds -= step
            lease = await self.subscriptions.renew(lease)
        return lease

    async def _disable(self, reason: str) -> None:
        """Say in the log that nothing is sent any more."""
        webhook_id, now_us = self.webhook.webhook_id, self.clock.now_us()
        context = EventContext(tenant=self.webhook.tenant, actor="manent")
        with suppress(WebhookNotFound):
            await record_webhooks(
                self.store,
                context,
                lambda webhooks: found_webhook(webhooks, webhook_id).changed(
                    enabled=False, reason=reason, by="manent", now_us=now_us
                ),
            )

    def _is_half_over(self, lease: Lease) -> bool:
        return lease.expires_at_us - self.clock.now_us() < self.limits.ttl_s * 1_000_000 / 2
