"""Webhooks on the wire: what is asked for them, and what is told of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_responses import Answer
from manent.domain.webhooks import DESCRIPTION_CHARS_MAX, EVENTS_MAX, URL_CHARS_MAX

Url = Annotated[str, Field(min_length=1, max_length=URL_CHARS_MAX)]
Events = Annotated[
    list[str], Field(max_length=EVENTS_MAX, description="Types of events, as CompletionGenerated; empty is all.")
]
Description = Annotated[str, Field(max_length=DESCRIPTION_CHARS_MAX)]
Content = Annotated[bool, Field(description="Whether messages hold what events say, and not their headers alone.")]


class WebhookRequest(Wire):
    """A new webhook."""

    url: Url
    events: Events = Field(default_factory=list)
    content: Content = False
    description: Description = ""


class WebhookUpdate(Wire):
    """What is to be different."""

    url: Url | None = None
    events: Events | None = None
    content: Content | None = None
    description: Description | None = None
    enabled: bool | None = None


class Webhook(Answer):
    """Where events are sent."""

    id: str
    object: Literal["webhook"] = "webhook"
    url: str
    events: list[str]
    content: bool
    description: str
    enabled: bool
    reason: str | None = Field(description="Why it is not enabled, where no operator wished so.")
    created_at: int


class WebhookCreated(Webhook):
    """A webhook with its new secret, which is shown this once."""

    secret: str = Field(description="whsec_ and base64, as receivers of Standard Webhooks take it.")


class WebhookStatus(Webhook):
    """A webhook, and how far it is."""

    position: int = Field(description="Everything up to this position of the log was sent, or is a dead letter.")


class WebhookList(Answer):
    """All webhooks of the tenant."""

    object: Literal["list"] = "list"
    data: list[Webhook]


class WebhookDeleted(Answer):
    """A webhook was removed."""

    id: str
    object: Literal["webhook.deleted"] = "webhook.deleted"
    deleted: bool = True


class DeadLetter(Answer):
    """An event that the receiver did not take."""

    object: Literal["webhook.dead_letter"] = "webhook.dead_letter"
    position: int
    type: str
    attempts: int
    reason: str
    abandoned_at: int


class DeadLetterList(Answer):
    """A page of dead letters. ``first_id`` and ``last_id`` are positions; ``last_id`` goes into ``after``."""

    object: Literal["list"] = "list"
    data: list[DeadLetter]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Redelivered(Answer):
    """A dead letter was sent again and taken."""

    object: Literal["webhook.redelivery"] = "webhook.redelivery"
    position: int
    delivered: bool = True
