"""Webhooks over HTTP: make, look at, change, remove; dead letters; send one again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sanic import HTTPResponse

from manent.adapters.http import wire_webhooks as wire
from manent.adapters.http.answers import json_answer
from manent.adapters.http.context import Exchange, Webhooks
from manent.adapters.http.events import POSITION, POSITION_MAX
from manent.adapters.http.json_body import json_object
from manent.adapters.http.query import IntQuery, QueryParameter
from manent.adapters.http.validation import validated
from manent.domain.errors import StoreUnavailable
from manent.domain.usecases.dead_letters import LIMIT_MAX
from manent.domain.usecases.manage_webhooks import WebhookWish
from manent.domain.webhooks import DeadLetterNotFound, Webhook

DEAD_LETTERS_QUERY: Sequence[QueryParameter] = (
    IntQuery(name="after", says="last_id of the page before", minimum=0, maximum=POSITION_MAX, default=0),
    IntQuery(name="limit", says="how many dead letters to return", minimum=1, maximum=LIMIT_MAX, default=100),
)


async def create_webhook(exchange: Exchange) -> HTTPResponse:
    """A new webhook; the answer is the only place that shows its secret."""
    asked = validated(wire.WebhookRequest, json_object(exchange.request))
    wish = WebhookWish(url=asked.url, events=tuple(asked.events), content=asked.content, description=asked.description)
    webhook, secret = await _webhooks(exchange).manage.create(
        exchange.principal, wish, request_id=exchange.request.request_id
    )
    return json_answer(wire.WebhookCreated(**_members(webhook), secret=secret), status=201)


async def list_webhooks(exchange: Exchange) -> HTTPResponse:
    """The tenant's webhooks."""
    found = await _webhooks(exchange).manage.list_all(exchange.principal)
    return json_answer(wire.WebhookList(data=[wire.Webhook(**_members(webhook)) for webhook in found]))


async def retrieve_webhook(exchange: Exchange, webhook_id: str) -> HTTPResponse:
    """One webhook, and how far it is."""
    webhook, position = await _webhooks(exchange).manage.get(exchange.principal, webhook_id)
    return json_answer(wire.WebhookStatus(**_members(webhook), position=position))


async def update_webhook(exchange: Exchange, webhook_id: str) -> HTTPResponse:
    """Change a webhook."""
    asked = validated(wire.WebhookUpdate, json_object(exchange.request))
    wish = WebhookWish(
        url=asked.url,
        events=None if asked.events is None else tuple(asked.events),
        content=asked.content,
        description=asked.description,
        enabled=asked.enabled,
    )
    changed = await _webhooks(exchange).manage.change(
        exchange.principal, webhook_id, wish, request_id=exchange.request.request_id
    )
    return json_answer(wire.Webhook(**_members(changed)))


async def rotate_secret(exchange: Exchange, webhook_id: str) -> HTTPResponse:
    """Give a webhook a new secret; for a day messages bear the signatures of both."""
    webhook, secret = await _webhooks(exchange).manage.rotate(
        exchange.principal, webhook_id, request_id=exchange.request.request_id
    )
    return json_answer(wire.WebhookCreated(**_members(webhook), secret=secret))


async def delete_webhook(exchange: Exchange, webhook_id: str) -> HTTPResponse:
    """Remove a webhook."""
    await _webhooks(exchange).manage.delete(exchange.principal, webhook_id, request_id=exchange.request.request_id)
    return json_answer(wire.WebhookDeleted(id=webhook_id))


async def list_dead_letters(exchange: Exchange, webhook_id: str) -> HTTPResponse:
    """What the receiver did not take, oldest first."""
    page, has_more = await _webhooks(exchange).letters.page(
        exchange.principal, webhook_id, after=exchange.query["after"], limit=exchange.query["limit"]
    )
    return json_answer(
        wire.DeadLetterList(
            data=[
                wire.DeadLetter(
                    position=letter.position,
                    type=letter.event_type,
                    attempts=letter.attempts,
                    reason=letter.reason,
                    abandoned_at=letter.abandoned_at_us // 1_000_000,
                )
                for letter in page
            ],
            first_id=str(page[0].position) if page else None,
            last_id=str(page[-1].position) if page else None,
            has_more=has_more,
        )
    )


async def redeliver(exchange: Exchange, webhook_id: str, position: str) -> HTTPResponse:
    """Send a dead letter again, once; answered when the receiver took it."""
    if not POSITION.fullmatch(position):
        raise DeadLetterNotFound(f"{position[:80]!r} is no position of the log")
    await _webhooks(exchange).letters.redeliver(
        exchange.principal, webhook_id, int(position), request_id=exchange.request.request_id
    )
    return json_answer(wire.Redelivered(position=int(position)))


def _webhooks(exchange: Exchange) -> Webhooks:
    if exchange.services.webhooks is None:
        raise StoreUnavailable("this server sends no webhooks")
    return exchange.services.webhooks


def _members(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.webhook_id,
        "url": webhook.url,
        "events": list(webhook.events),
        "content": webhook.content,
        "description": webhook.description,
        "enabled": webhook.enabled,
        "reason": webhook.reason,
        "created_at": webhook.created_at_us // 1_000_000,
    }
