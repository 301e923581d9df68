"""The routes of webhooks, a part of the one table."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.http import webhooks
from manent.adapters.http import wire_webhooks as wire
from manent.adapters.http.route import BODY_ERRORS, BODY_LIMITS, STORE_ERRORS, Route
from manent.domain.access import Scope

WEBHOOK = "/webhooks/<webhook_id:str>"
READING = ("unknown_parameter", "permission_denied", "log_corrupt", *STORE_ERRORS)
ONE = (*READING, "webhook_not_found")
WRITING = (*BODY_ERRORS, *BODY_LIMITS, "version_conflict", "webhook_key_unusable")

WEBHOOK_ROUTES: Sequence[Route] = (
    Route(
        name="createWebhook",
        method="POST",
        path="/webhooks",
        handler=webhooks.create_webhook,
        summary="Have events sent to an address",
        tag="Webhooks",
        body=wire.WebhookRequest,
        answer=wire.WebhookCreated,
        status=201,
        errors=(*READING, *WRITING),
        scope=Scope.ADMIN,
    ),
    Route(
        name="listWebhooks",
        method="GET",
        path="/webhooks",
        handler=webhooks.list_webhooks,
        summary="List webhooks",
        tag="Webhooks",
        answer=wire.WebhookList,
        errors=READING,
        scope=Scope.ADMIN,
    ),
    Route(
        name="retrieveWebhook",
        method="GET",
        path=WEBHOOK,
        handler=webhooks.retrieve_webhook,
        summary="Retrieve a webhook, and how far it is",
        tag="Webhooks",
        answer=wire.WebhookStatus,
        errors=ONE,
        scope=Scope.ADMIN,
    ),
    Route(
        name="updateWebhook",
        method="POST",
        path=WEBHOOK,
        handler=webhooks.update_webhook,
        summary="Change, disable or enable a webhook",
        tag="Webhooks",
        body=wire.WebhookUpdate,
        answer=wire.Webhook,
        errors=(*ONE, *WRITING),
        scope=Scope.ADMIN,
    ),
    Route(
        name="rotateWebhookSecret",
        method="POST",
        path=f"{WEBHOOK}/rotate",
        handler=webhooks.rotate_secret,
        summary="Give a webhook a new secret; the old one signs as well for a day",
        tag="Webhooks",
        answer=wire.WebhookCreated,
        errors=(*ONE, "version_conflict", "webhook_key_unusable"),
        scope=Scope.ADMIN,
    ),
    Route(
        name="deleteWebhook",
        method="DELETE",
        path=WEBHOOK,
        handler=webhooks.delete_webhook,
        summary="Remove a webhook",
        tag="Webhooks",
        answer=wire.WebhookDeleted,
        errors=(*ONE, "version_conflict"),
        scope=Scope.ADMIN,
    ),
    Route(
        name="listDeadLetters",
        method="GET",
        path=f"{WEBHOOK}/dead_letters",
        handler=webhooks.list_dead_letters,
        summary="List the events that the receiver did not take",
        tag="Webhooks",
        answer=wire.DeadLetterList,
        query=webhooks.DEAD_LETTERS_QUERY,
        errors=(*ONE, "invalid_type", "invalid_value"),
        scope=Scope.ADMIN,
    ),
    Route(
        name="redeliverDeadLetter",
        method="POST",
        path=f"{WEBHOOK}/dead_letters/<position:str>/redeliver",
        handler=webhooks.redeliver,
        summary="Send a dead letter again",
        tag="Webhooks",
        answer=wire.Redelivered,
        errors=(*ONE, "dead_letter_not_found", "delivery_failed", "webhook_key_unusable", "version_conflict"),
        scope=Scope.ADMIN,
    ),
)
