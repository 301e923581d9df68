"""A tenant's webhooks as the log has them: folded, and appended to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from manent.domain.errors import VersionConflict
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from manent.domain.usecases.stream_records import stream_records
from manent.domain.webhook_events import WEBHOOKS_STREAM, WebhookEvent
from manent.domain.webhooks import Webhook, WebhookNotFound, evolve

ATTEMPTS_MAX = 8

Decide = Callable[[Mapping[str, Webhook]], WebhookEvent]
"""The event that the webhooks as they stand call for; raises where it is none."""


async def tenant_webhooks(
    store: EventStore, tenant: str, *, known: tuple[dict[str, Webhook], int] | None = None
) -> tuple[dict[str, Webhook], int]:
    """A tenant's webhooks, by id in the order of their making, and the version of their stream; from ``known`` on."""
    webhooks, version = known or ({}, 0)
    async for record in stream_records(store, tenant, WEBHOOKS_STREAM, after_version=version):
        webhooks = evolve(tenant, webhooks, record.event)  # type: ignore[arg-type]  # other events change nothing
        version = record.header.stream_version
    return webhooks, version


async def record_webhooks(store: EventStore, context: EventContext, decide: Decide) -> Mapping[str, Webhook]:
    """Append what ``decide`` says of the webhooks as they stand; they as they stand then.

    Raises:
        VersionConflict: others changed them each time; StoreUnavailable: the store did not take it.
    """
    for attempt in range(1, ATTEMPTS_MAX + 1):
        webhooks, version = await tenant_webhooks(store, context.tenant)
        event = decide(webhooks)
        try:
            await store.append(WEBHOOKS_STREAM, [event], expected_version=version, context=context)
        except VersionConflict:
            if attempt == ATTEMPTS_MAX:
                raise
            continue
        return evolve(context.tenant, webhooks, event)
    raise AssertionError("the last attempt returns or raises")


def found_webhook(webhooks: Mapping[str, Webhook], webhook_id: str) -> Webhook:
    """The webhook of an id, or WebhookNotFound."""
    webhook = webhooks.get(webhook_id)
    if webhook is None:
        raise WebhookNotFound(f"no webhook {webhook_id!r:.100} was found")
    return webhook
