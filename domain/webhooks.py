"""Webhooks: where events of the log are sent, in the form of Standard Webhooks (www.standardwebhooks.com).

A webhook's deliveries are a subscription on the log: in order, at least once each, and resumed where they ended. What
a receiver does not take within the bounds becomes a dead letter. Events about webhooks are never sent: each delivery
would cause another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from manent.domain.access import Principal, Scope
from manent.domain.errors import DomainError, InvalidValue, PermissionDenied
from manent.domain.records import EventHeader, LogEntry
from manent.domain.webhook_events import (
    WebhookChanged,
    WebhookCreated,
    WebhookDeleted,
    WebhookEvent,
    WebhookSecretRotated,
)

WEBHOOKS_MAX = 50
URL_CHARS_MAX = 2048
DESCRIPTION_CHARS_MAX = 500
EVENTS_MAX = 100
CONTENT_BYTES_MAX = 256 * 1024
SECRET_PREFIX = "whsec_"  # noqa: S105 (what a secret begins with is none)
OWN_EVENTS = "Webhook"
"""What the types of events begin with that are never sent."""

RETRY_FIRST_S = 5.0
RETRY_FACTOR = 3.0
RETRY_MAX_S = 3600.0
JITTER = 0.2


class WebhookNotFound(DomainError):
    """The tenant has no webhook with this id."""

    code = "webhook_not_found"
    param = "webhook_id"


class DeadLetterNotFound(DomainError):
    """The webhook has no dead letter of this position: it was delivered, or never was to be."""

    code = "dead_letter_not_found"
    param = "position"


class DeliveryFailed(DomainError):
    """The receiver did not take the message; ``status`` is what it answered, None where it did not."""

    code = "delivery_failed"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where what is sent. ``reason`` says why it is not enabled, where that was no operator's wish."""

    tenant: str
    webhook_id: str
    url: str
    events: tuple[str, ...]
    content: bool
    description: str
    secret_salt: str
    secret_key_id: str
    created_by: str
    created_at_us: int
    enabled: bool = True
    reason: str | None = None
    old_salt: str | None = None
    old_key_id: str | None = None
    both_until_us: int = 0

    @property
    def subscription(self) -> str:
        """The name of its checkpoint."""
        return f"{SUBSCRIPTIONS}{self.webhook_id}/{self.tenant}"

    def wants(self, header: EventHeader) -> bool:
        """Whether an event is to be sent to it."""
        return not header.type.startswith(OWN_EVENTS) and (not self.events or header.type in self.events)

    def changed(self, *, enabled: bool, reason: str | None, by: str, now_us: int) -> WebhookChanged:
        """The event that says what it is from now on."""
        return WebhookChanged(
            webhook_id=self.webhook_id,
            url=self.url,
            events=self.events,
            content=self.content,
            description=self.description,
            enabled=enabled,
            reason=reason,
            changed_by=by,
            changed_at_us=now_us,
        )


SUBSCRIPTIONS = "webhook/"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that a receiver did not take."""

    position: int
    event_type: str
    attempts: int
    reason: str
    abandoned_at_us: int


class WebhookSender(Protocol):
    """Sends messages to receivers."""

    def check(self, url: str) -> None:
        """Raise InvalidValue where the operator allows no such address."""
        ...

    async def send(self, url: str, *, headers: Mapping[str, str], body: bytes) -> None:
        """Post ``body``, and return once the receiver took it (any status of 2xx).

        Raises:
            DeliveryFailed: it answered otherwise, or not in time, or may not be asked.
        """
        ...


class WebhookSecrets(Protocol):
    """Derives the webhooks' secrets from a key that is neither in the log nor in the database."""

    @property
    def key_id(self) -> str:
        """What tells this key from others."""
        ...

    def secret(self, tenant: str, webhook_id: str, salt: str) -> bytes:
        """32 bytes."""
        ...


def evolve(tenant: str, webhooks: Mapping[str, Webhook], event: WebhookEvent) -> dict[str, Webhook]:
    """A tenant's webhooks, by id, after ``event``."""
    found = dict(webhooks)
    match event:
        case WebhookCreated():
            found[event.webhook_id] = Webhook(tenant=tenant, **asdict(event))
        case WebhookChanged() if event.webhook_id in found:
            found[event.webhook_id] = replace(
                found[event.webhook_id],
                url=event.url,
                events=event.events,
                content=event.content,
                description=event.description,
                enabled=event.enabled,
                reason=event.reason,
            )
        case WebhookSecretRotated() if event.webhook_id in found:
            webhook = found[event.webhook_id]
            found[event.webhook_id] = replace(
                webhook,
                secret_salt=event.secret_salt,
                secret_key_id=event.secret_key_id,
                old_salt=webhook.secret_salt,
                old_key_id=webhook.secret_key_id,
                both_until_us=event.both_until_us,
            )
        case WebhookDeleted():
            found.pop(event.webhook_id, None)
        case _:
            pass
    return found


def require_admin(principal: Principal) -> None:
    """Raise PermissionDenied unless ``principal`` administers its tenant."""
    if Scope.ADMIN not in principal.scopes:
        raise PermissionDenied("webhooks need the scope 'admin'")


def check_webhook(*, url: str, events: Iterable[str], description: str, known_types: Collection[str]) -> None:
    """Raise InvalidValue where a webhook cannot be like this."""
    if len(url) > URL_CHARS_MAX:
        raise InvalidValue(f"the url has {len(url)} characters; at most {URL_CHARS_MAX} are allowed", param="url")
    if len(description) > DESCRIPTION_CHARS_MAX:
        raise InvalidValue(f"the description has more than {DESCRIPTION_CHARS_MAX} characters", param="description")
    for number, name in enumerate(events):
        if name not in known_types or name.startswith(OWN_EVENTS) or number >= EVENTS_MAX:
            sent = sorted(known for known in known_types if not known.startswith(OWN_EVENTS))
            raise InvalidValue(
                f"{name!r:.100} is no type of event that is sent; those are {', '.join(sent)}", param="events"
            )


def shown_secret(secret: bytes) -> str:
    """A secret as receivers are given it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode("ascii")


def message_body(entry: LogEntry, *, content: bool) -> bytes:
    """The message about an event: its header, and its payload where ``content`` is asked for and within the bound.

    The payload's bytes stand unchanged, so that with the salt its digest can be recomputed.
    """
    header, payload, salt = entry.header, b"null", b"null"
    omitted: str | None = None if content else "not_asked_for"
    if content and entry.payload is None:
        omitted = "erased"
    elif content and entry.payload is not None and len(entry.payload) > CONTENT_BYTES_MAX:
        omitted = "too_large"
    elif content and entry.payload is not None:
        payload, salt = entry.payload, _json(base64.b64encode(entry.salt or b"").decode("ascii"))
    at = datetime.fromtimestamp(header.recorded_at_us / 1_000_000, UTC).isoformat().replace("+00:00", "Z")
    return b"".join(
        (
            b'{"type":' + _json(header.type) + b',"timestamp":' + _json(at),
            b',"data":{"object":"event","header":' + _json(asdict(header)) + b',"payload":' + payload,
            b',"salt":' + salt + b',"omitted":' + _json(omitted) + b"}}",
        )
    )


def message_headers(secrets: Iterable[bytes], message_id: str, *, at_s: int, body: bytes) -> dict[str, str]:
    """The headers of a message, signed with each secret as the specification has it.

    A signature is HMAC-SHA256 over id, time in seconds and body; receivers look for one that they can verify.
    """
    signed = f"{message_id}.{at_s}.".encode() + body
    digests = [hmac.digest(secret, signed, hashlib.sha256) for secret in secrets]
    return {
        "content-type": "application/json",
        "user-agent": "Manent-Webhooks",
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests),
    }


def retry_after_s(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row; ``chance``, from 0 to 1, spreads receivers apart."""
    exact = min(RETRY_FIRST_S * RETRY_FACTOR ** (failures - 1), RETRY_MAX_S)
    return float(exact * (1 - JITTER + 2 * JITTER * chance))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
