"""What the machine and its operators do, together: models, webhooks. Conversations: ``manent.domain.events``."""

from __future__ import annotations

from manent.domain.model_events import ModelEvent
from manent.domain.webhook_events import WebhookEvent

OperatorEvent = ModelEvent | WebhookEvent
