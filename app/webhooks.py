"""Webhooks put together: what manages them, and what delivers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from manent.adapters.store.codec import EVENT_TYPES
from manent.adapters.store.database import open_subscription_engine
from manent.adapters.store.subscriptions import SQLSubscriptionStore
from manent.adapters.webhooks.secrets import FileWebhookSecrets
from manent.adapters.webhooks.sender import HttpWebhookSender
from manent.app.settings import Settings
from manent.app.system import RandomIds
from manent.domain.ports import Clock, EventStore
from manent.domain.subscriptions import SubscriptionStore
from manent.domain.usecases.dead_letters import DeadLetters
from manent.domain.usecases.deliver_webhooks import DeliverWebhooks, DeliveryLimits
from manent.domain.usecases.log_reader import LogReader, LogSignal
from manent.domain.usecases.manage_webhooks import ManageWebhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookCases:
    """What operators do with webhooks, and the checkpoints that deliveries go by."""

    manage: ManageWebhooks
    letters: DeadLetters
    subscriptions: SubscriptionStore


@asynccontextmanager
async def webhook_cases(settings: Settings, store: EventStore, clock: Clock) -> AsyncGenerator[WebhookCases, None]:
    """The webhooks of the log in ``store``, for as long as the context lasts; nothing is sent by itself."""
    engine = open_subscription_engine(settings.database)
    subscriptions = SQLSubscriptionStore(engine, clock=clock)
    sender, secrets = HttpWebhookSender(settings.webhook_urls), FileWebhookSecrets(settings.keys_folder)
    try:
        yield WebhookCases(
            manage=ManageWebhooks(
                store=store,
                subscriptions=subscriptions,
                sender=sender,
                secrets=secrets,
                clock=clock,
                ids=RandomIds(),
                known_types=EVENT_TYPES,
            ),
            letters=DeadLetters(store=store, sender=sender, secrets=secrets, clock=clock),
            subscriptions=subscriptions,
        )
    finally:
        await engine.dispose()


def deliveries(settings: Settings, cases: WebhookCases, store: EventStore, clock: Clock) -> DeliverWebhooks:
    """What follows the log and sends."""
    signal = LogSignal()
    store.observe(signal.notify)
    delivering = DeliverWebhooks(
        store=store,
        subscriptions=cases.subscriptions,
        reader=LogReader(store, signal),
        letters=cases.letters,
        clock=clock,
        ids=RandomIds(),
        limits=DeliveryLimits(attempts_max=settings.webhook_attempts_max, at_once_max=settings.webhook_deliveries_max),
    )
    cases.manage.observe(delivering.changed)
    return delivering
