"""Dead letters: what a webhook's receiver did not take, kept as events of the webhook's own stream."""

from __future__ import annotations

from collections.abc import Sequence

from manent.domain.access import Principal
from manent.domain.errors import EventNotFound, InvalidValue, VersionConflict
from manent.domain.ports import Clock, EventStore
from manent.domain.records import EventContext, EventFilter, LogEntry
from manent.domain.usecases.stream_records import stream_records
from manent.domain.usecases.webhook_records import ATTEMPTS_MAX, found_webhook, tenant_webhooks
from manent.domain.webhook_events import WebhookDeliveryAbandoned, WebhookDeliveryRepeated, deliveries_stream
from manent.domain.webhooks import (
    DeadLetter,
    DeadLetterNotFound,
    DeliveryFailed,
    Webhook,
    WebhookSecrets,
    WebhookSender,
    message_body,
    message_headers,
    require_admin,
)

LIMIT_MAX = 1000


class DeadLetters:
    """The dead letters of all webhooks: added by whoever delivers, looked at and sent again by administrators."""

    def __init__(self, *, store: EventStore, sender: WebhookSender, secrets: WebhookSecrets, clock: Clock) -> None:
        self._store = store
        self._sender = sender
        self._secrets = secrets
        self._clock = clock

    async def page(
        self, principal: Principal, webhook_id: str, *, after: int, limit: int
    ) -> tuple[Sequence[DeadLetter], bool]:
        """At most ``limit`` dead letters with positions above ``after``, and whether more follow.

        Raises:
            PermissionDenied, WebhookNotFound: as ``ManageWebhooks``. InvalidValue: ``limit`` is out of its range.
        """
        if not 1 <= limit <= LIMIT_MAX:
            raise InvalidValue(f"limit is {limit}; it must be between 1 and {LIMIT_MAX}", param="limit")
        await self._webhook(principal, webhook_id)
        letters, _ = await self._letters(principal.tenant, webhook_id)
        found = [letters[position] for position in sorted(letters) if position > after]
        return found[:limit], len(found) > limit

    async def redeliver(
        self, principal: Principal, webhook_id: str, position: int, *, request_id: str | None = None
    ) -> None:
        """Send a dead letter again, once and now; it is one no more when the receiver took it.

        Raises:
            PermissionDenied, WebhookNotFound: as ``ManageWebhooks``. DeliveryFailed: the receiver did not take it.
            DeadLetterNotFound: there is none of that position.
        """
        webhook = await self._webhook(principal, webhook_id)
        letters, _ = await self._letters(principal.tenant, webhook_id)
        if position not in letters:
            raise DeadLetterNotFound(f"webhook {webhook_id!r} has no dead letter at position {position}")
        await self.send(await self._entry(principal.tenant, position), webhook)
        repeated = WebhookDeliveryRepeated(
            webhook_id=webhook_id,
            position=position,
            repeated_by=principal.subject,
            repeated_at_us=self._clock.now_us(),
        )
        await self._append(
            webhook, repeated, EventContext(tenant=principal.tenant, actor=principal.subject, request_id=request_id)
        )

    async def abandon(self, webhook: Webhook, entry: LogEntry, *, attempts: int, reason: str) -> None:
        """Record that an event was not taken."""
        abandoned = WebhookDeliveryAbandoned(
            webhook_id=webhook.webhook_id,
            position=entry.header.position,
            event_type=entry.header.type,
            attempts=attempts,
            reason=reason,
            abandoned_at_us=self._clock.now_us(),
        )
        await self._append(webhook, abandoned, EventContext(tenant=webhook.tenant, actor="manent"))

    async def send(self, entry: LogEntry, webhook: Webhook) -> None:
        """Send the message about an event; its id is the event's, so that receivers know a repetition.

        Raises:
            DeliveryFailed: the receiver did not take it, or another key than this server's made its secret.
        """
        if webhook.secret_key_id != self._secrets.key_id:
            raise DeliveryFailed(
                "its secret was made with another key than this server's: put that webhooks.key in MANENT_HOME/keys, "
                "or rotate the secret"
            )
        body = message_body(entry, content=webhook.content)
        now_us = self._clock.now_us()
        salts = [webhook.secret_salt]
        if webhook.old_salt and webhook.old_key_id == webhook.secret_key_id and now_us < webhook.both_until_us:
            salts.append(webhook.old_salt)
        secrets = [self._secrets.secret(webhook.tenant, webhook.webhook_id, salt) for salt in salts]
        at_s = now_us // 1_000_000
        headers = message_headers(secrets, entry.header.event_id, at_s=at_s, body=body)
        await self._sender.send(webhook.url, headers=headers, body=body)

    async def _webhook(self, principal: Principal, webhook_id: str) -> Webhook:
        require_admin(principal)
        webhooks, _ = await tenant_webhooks(self._store, principal.tenant)
        return found_webhook(webhooks, webhook_id)

    async def _append(
        self, webhook: Webhook, event: WebhookDeliveryAbandoned | WebhookDeliveryRepeated, context: EventContext
    ) -> None:
        stream_id = deliveries_stream(webhook.webhook_id)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            _, version = await self._letters(webhook.tenant, webhook.webhook_id)
            try:
                await self._store.append(stream_id, [event], expected_version=version, context=context)
            except VersionConflict:
                if attempt == ATTEMPTS_MAX:
                    raise
            else:
                return

    async def _letters(self, tenant: str, webhook_id: str) -> tuple[dict[int, DeadLetter], int]:
        letters: dict[int, DeadLetter] = {}
        version = 0
        async for record in stream_records(self._store, tenant, deliveries_stream(webhook_id)):
            version = record.header.stream_version
            match record.event:
                case WebhookDeliveryAbandoned() as abandoned:
                    letters[abandoned.position] = DeadLetter(
                        position=abandoned.position,
                        event_type=abandoned.event_type,
                        attempts=abandoned.attempts,
                        reason=abandoned.reason,
                        abandoned_at_us=abandoned.abandoned_at_us,
                    )
                case WebhookDeliveryRepeated() as repeated:
                    letters.pop(repeated.position, None)
                case _:
                    pass
        return letters, version

    async def _entry(self, tenant: str, position: int) -> LogEntry:
        one = EventFilter(tenant=tenant, min_position=position, max_position=position)
        found = await self._store.query(one, limit=1)
        if not found:
            raise EventNotFound(f"no event was found at position {position}")
        return found[0]
