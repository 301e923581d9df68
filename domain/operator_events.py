"""What the machine and its operators do: models, keys and readings, webhooks. Conversations are in ``events``."""

from __future__ import annotations

from manent.domain.access_events import AccessEvent
from manent.domain.model_events import ModelEvent
from manent.domain.webhook_events import WebhookEvent

OperatorEvent = ModelEvent | AccessEvent | WebhookEvent
