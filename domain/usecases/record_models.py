"""Model loads, unloads and crashes as events of the model's stream."""

from __future__ import annotations

import logging

from manent.domain.errors import DomainError, VersionConflict
from manent.domain.model_events import ModelEvent, model_stream
from manent.domain.ports import EventStore
from manent.domain.records import EventContext

PAGE = 500
ATTEMPTS_MAX = 8

_log = logging.getLogger("manent.models")


class RecordModelEvents:
    """Appends what the engine's runners do. Recording must never keep a model from working: failures are logged."""

    def __init__(self, store: EventStore, *, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._versions: dict[str, int] = {}

    async def record(self, event: ModelEvent) -> None:
        """Append ``event`` to the stream of its model."""
        context = EventContext(tenant=self._tenant, actor="manent")
        stream_id = model_stream(event.model_id)
        try:
            for _ in range(ATTEMPTS_MAX):
                version = await self._version(stream_id)
                try:
                    appended = await self._store.append(stream_id, [event], expected_version=version, context=context)
                except VersionConflict:
                    continue
                self._versions[stream_id] = appended.stream_version
                return
        except DomainError as error:
            _log.warning("%s of %s was not recorded: %s", type(event).__name__, event.model_id, error.message)

    async def _version(self, stream_id: str) -> int:
        version = self._versions.get(stream_id, 0)
        while True:
            page = await self._store.read_stream(self._tenant, stream_id, after_version=version, limit=PAGE)
            version += len(page)
            if len(page) < PAGE:
                return version
