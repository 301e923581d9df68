"""What happens to webhooks, as events of the log; see ``manent.domain.webhooks``. No event holds a secret."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookCreated:
    """Events are sent to ``url`` from now on: those of the types in ``events``, all where it is empty.

    With ``content`` messages hold the events' payloads, else their headers alone. The secret is derived from
    ``secret_salt`` by the key that ``secret_key_id`` names, which is not in the log.
    """

    webhook_id: str
    url: str
    events: tuple[str, ...]
    content: bool
    description: str
    secret_salt: str
    secret_key_id: str
    created_by: str
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChanged:
    """The webhook is this from now on; ``reason`` says why it is not enabled, where it was not an operator's wish."""

    webhook_id: str
    url: str
    events: tuple[str, ...]
    content: bool
    description: str
    enabled: bool
    reason: str | None
    changed_by: str
    changed_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSecretRotated:
    """The secret is derived from this salt from now on; messages bear the old one's signature too, for a while."""

    webhook_id: str
    secret_salt: str
    secret_key_id: str
    both_until_us: int
    rotated_by: str
    rotated_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDeleted:
    """Nothing is sent to it any more."""

    webhook_id: str
    deleted_by: str
    deleted_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDeliveryAbandoned:
    """The event at ``position`` could not be delivered in ``attempts`` attempts; it is a dead letter now."""

    webhook_id: str
    position: int
    event_type: str
    attempts: int
    reason: str
    abandoned_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDeliveryRepeated:
    """A dead letter was sent again, and the receiver took it."""

    webhook_id: str
    position: int
    repeated_by: str
    repeated_at_us: int


WebhookEvent = (
    WebhookCreated
    | WebhookChanged
    | WebhookSecretRotated
    | WebhookDeleted
    | WebhookDeliveryAbandoned
    | WebhookDeliveryRepeated
)
WEBHOOKS_STREAM = "webhooks"
"""The stream of a tenant's webhooks: what they are."""


def deliveries_stream(webhook_id: str) -> str:
    """The stream of what could not be delivered to a webhook."""
    return f"webhook-{webhook_id}"
