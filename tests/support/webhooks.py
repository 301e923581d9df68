"""Webhooks over a store in memory: real use cases, with a key that lies nowhere, and nothing sent by itself."""

from __future__ import annotations

import hashlib

from manent.adapters.store.codec import EVENT_TYPES
from manent.adapters.store.subscriptions import MemorySubscriptionStore
from manent.adapters.webhooks.sender import HttpWebhookSender
from manent.app.webhooks import WebhookCases
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.usecases.dead_letters import DeadLetters
from manent.domain.usecases.manage_webhooks import ManageWebhooks


class PlainSecrets:
    """Implements ``WebhookSecrets`` without a key: for tests alone."""

    key_id = "plain"

    def secret(self, tenant: str, webhook_id: str, salt: str) -> bytes:
        """See ``WebhookSecrets.secret``."""
        return hashlib.sha256(f"{tenant} {webhook_id} {salt}".encode()).digest()


def memory_webhooks(store: EventStore, clock: Clock, ids: Ids) -> WebhookCases:
    """What operators do with webhooks, on ``store``."""
    subscriptions, sender, secrets = MemorySubscriptionStore(clock=clock), HttpWebhookSender("https"), PlainSecrets()
    return WebhookCases(
        manage=ManageWebhooks(
            store=store,
            subscriptions=subscriptions,
            sender=sender,
            secrets=secrets,
            clock=clock,
            ids=ids,
            known_types=EVENT_TYPES,
        ),
        letters=DeadLetters(store=store, sender=sender, secrets=secrets, clock=clock),
        subscriptions=subscriptions,
    )
