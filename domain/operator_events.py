"""What is no conversation: models, keys and readings, webhooks, files, batches. Conversations are in ``events``."""

from __future__ import annotations

from manent.domain.access_events import AccessEvent
from manent.domain.batch_events import BatchEvent, FileEvent
from manent.domain.model_events import ModelEvent
from manent.domain.webhook_events import WebhookEvent

OperatorEvent = ModelEvent | AccessEvent | WebhookEvent | FileEvent | BatchEvent
