"""Webhooks made, changed and removed; every change is an event of the stream ``webhooks`` of their tenant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from manent.domain.access import Principal
from manent.domain.errors import InvalidValue
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.records import EventContext
from manent.domain.subscriptions import HeldBy, SubscriptionStore
from manent.domain.usecases.webhook_records import Decide, found_webhook, record_webhooks, tenant_webhooks
from manent.domain.webhook_events import WebhookCreated, WebhookDeleted, WebhookEvent, WebhookSecretRotated
from manent.domain.webhooks import (
    WEBHOOKS_MAX,
    Webhook,
    WebhookSecrets,
    WebhookSender,
    check_webhook,
    evolve,
    require_admin,
    shown_secret,
)

LEASE_S = 5.0
BOTH_SECRETS_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookWish:
    """What a webhook is to be; what is None stays, or is the default."""

    url: str | None = None
    events: tuple[str, ...] | None = None
    content: bool | None = None
    description: str | None = None
    enabled: bool | None = None


class ManageWebhooks:
    """What administrators of a tenant do with its webhooks.

    Every method raises PermissionDenied for others, and WebhookNotFound where a webhook is named that is not there.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        subscriptions: SubscriptionStore,
        sender: WebhookSender,
        secrets: WebhookSecrets,
        clock: Clock,
        ids: Ids,
        known_types: Collection[str],
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._sender = sender
        self._secrets = secrets
        self._clock = clock
        self._ids = ids
        self._known_types = known_types
        self._observers: list[Callable[[], None]] = []

    def observe(self, observer: Callable[[], None]) -> None:
        """Call ``observer`` after each change."""
        self._observers.append(observer)

    async def create(
        self, principal: Principal, wish: WebhookWish, *, request_id: str | None = None
    ) -> tuple[Webhook, str]:
        """A new webhook, and its secret, which is shown this once; it is sent what is recorded from now on.

        Raises:
            InvalidValue: its address is none that is allowed, an event type is unknown, or there are too many already.
        """
        require_admin(principal)
        url, events, description = wish.url or "", wish.events or (), wish.description or ""
        self._check(url, events, description)
        webhook_id = self._ids.new("wh_")
        created = WebhookCreated(
            webhook_id=webhook_id,
            url=url,
            events=events,
            content=bool(wish.content),
            description=description,
            secret_salt=self._ids.salt().hex(),
            secret_key_id=self._secrets.key_id,
            created_by=principal.subject,
            created_at_us=self._clock.now_us(),
        )

        def decide(webhooks: Mapping[str, Webhook]) -> WebhookEvent:
            if len(webhooks) >= WEBHOOKS_MAX:
                raise InvalidValue(f"there are {len(webhooks)} webhooks, and at most {WEBHOOKS_MAX} are kept")
            return created

        webhook = evolve(principal.tenant, {}, created)[webhook_id]
        await self._begin_at_the_end(webhook)
        await self._record(principal, decide, request_id)
        return webhook, shown_secret(self._secrets.secret(webhook.tenant, webhook_id, webhook.secret_salt))

    async def list_all(self, principal: Principal) -> Sequence[Webhook]:
        """The tenant's webhooks, oldest first."""
        require_admin(principal)
        webhooks, _ = await tenant_webhooks(self._store, principal.tenant)
        return list(webhooks.values())

    async def get(self, principal: Principal, webhook_id: str) -> tuple[Webhook, int]:
        """A webhook, and the position up to which everything was sent to it."""
        require_admin(principal)
        webhooks, _ = await tenant_webhooks(self._store, principal.tenant)
        webhook = found_webhook(webhooks, webhook_id)
        return webhook, await self._subscriptions.position(webhook.subscription)

    async def change(
        self, principal: Principal, webhook_id: str, wish: WebhookWish, *, request_id: str | None = None
    ) -> Webhook:
        """Change a webhook; one that is enabled again goes on where it ended.

        Raises:
            InvalidValue: as ``create``.
        """
        require_admin(principal)

        def decide(webhooks: Mapping[str, Webhook]) -> WebhookEvent:
            webhook = found_webhook(webhooks, webhook_id)
            wanted = replace(
                webhook,
                url=webhook.url if wish.url is None else wish.url,
                events=webhook.events if wish.events is None else wish.events,
                content=webhook.content if wish.content is None else wish.content,
                description=webhook.description if wish.description is None else wish.description,
            )
            self._check(wanted.url, wanted.events, wanted.description)
            enabled = webhook.enabled if wish.enabled is None else wish.enabled
            reason = webhook.reason if wish.enabled is None else None
            return wanted.changed(enabled=enabled, reason=reason, by=principal.subject, now_us=self._clock.now_us())

        return (await self._record(principal, decide, request_id))[webhook_id]

    async def rotate(
        self, principal: Principal, webhook_id: str, *, request_id: str | None = None
    ) -> tuple[Webhook, str]:
        """Give a webhook a new secret, which is shown this once; for a day messages bear both signatures."""
        require_admin(principal)
        now_us, salt = self._clock.now_us(), self._ids.salt().hex()

        def decide(webhooks: Mapping[str, Webhook]) -> WebhookEvent:
            found_webhook(webhooks, webhook_id)
            return WebhookSecretRotated(
                webhook_id=webhook_id,
                secret_salt=salt,
                secret_key_id=self._secrets.key_id,
                both_until_us=now_us + BOTH_SECRETS_US,
                rotated_by=principal.subject,
                rotated_at_us=now_us,
            )

        webhook = (await self._record(principal, decide, request_id))[webhook_id]
        return webhook, shown_secret(self._secrets.secret(webhook.tenant, webhook_id, salt))

    async def delete(self, principal: Principal, webhook_id: str, *, request_id: str | None = None) -> None:
        """Remove a webhook; what was not sent to it yet is not sent."""
        require_admin(principal)

        def decide(webhooks: Mapping[str, Webhook]) -> WebhookEvent:
            found_webhook(webhooks, webhook_id)
            return WebhookDeleted(
                webhook_id=webhook_id, deleted_by=principal.subject, deleted_at_us=self._clock.now_us()
            )

        await self._record(principal, decide, request_id)

    def _check(self, url: str, events: Collection[str], description: str) -> None:
        check_webhook(url=url, events=events, description=description, known_types=self._known_types)
        self._sender.check(url)

    async def _begin_at_the_end(self, webhook: Webhook) -> None:
        """Give it a checkpoint at the log's end, before it is recorded: servers find webhooks by their checkpoints."""
        lease = await self._subscriptions.acquire(webhook.subscription, owner="manage", ttl_s=LEASE_S)
        if not isinstance(lease, HeldBy):
            lease = await self._subscriptions.advance(lease, (await self._store.head()).size)
            await self._subscriptions.release(lease)

    async def _record(self, principal: Principal, decide: Decide, request_id: str | None) -> Mapping[str, Webhook]:
        context = EventContext(tenant=principal.tenant, actor=principal.subject, request_id=request_id)
        webhooks = await record_webhooks(self._store, context, decide)
        for observer in self._observers:
            observer()
        return webhooks
