"""Model loads, unloads and crashes as events of the model's stream, and what those say of the next load."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context

from manent.domain.errors import DomainError, VersionConflict
from manent.domain.events import DomainEvent
from manent.domain.model_events import (
    ModelEvent,
    ModelLoaded,
    ModelLoadFailed,
    ModelPinChanged,
    ModelSuspended,
    ModelUnloaded,
    RunnerCrashed,
    model_stream,
)
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from manent.domain.usecases.stream_records import stream_records

ATTEMPTS_MAX = 8

_log = logging.getLogger("manent.models")


class RecordModelEvents:
    """Appends what the engine's runners do. Recording must never keep a model from working: failures are logged."""

    def __init__(self, store: EventStore, *, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._versions: dict[str, int] = {}
        self._memory_bytes: dict[str, int] = {}
        self._observers: list[Callable[[ModelEvent], None]] = []

    def observe(self, observer: Callable[[ModelEvent], None]) -> None:
        """Call ``observer`` with everything that happens to models, recorded or not."""
        self._observers.append(observer)

    async def record(self, event: ModelEvent) -> None:
        """Append ``event`` to the stream of its model, and tell the observers."""
        Context().run(_log.log, *_line(event))  # of no request: least of all of the one that the model was loaded for
        for observer in self._observers:
            observer(event)
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
                self._remember(event)
                return
        except DomainError as error:
            _log.warning("%s of %s was not recorded: %s", type(event).__name__, event.model_id, error.message)

    async def memory_of(self, model_id: str) -> int | None:
        """What the model held after its last load, in bytes; None where the log knows of no load.

        Raises:
            StoreUnavailable, LogCorrupt: the stream cannot be read.
        """
        await self._version(model_stream(model_id))
        return self._memory_bytes.get(model_id)

    async def _version(self, stream_id: str) -> int:
        """The stream's version; what is read on the way there is remembered."""
        version = self._versions.get(stream_id, 0)
        async for record in stream_records(self._store, self._tenant, stream_id, after_version=version):
            self._remember(record.event)
            self._versions[stream_id] = version = record.header.stream_version
        return version

    def _remember(self, event: DomainEvent) -> None:
        if isinstance(event, ModelLoaded):
            self._memory_bytes[event.model_id] = event.memory_bytes


def _line(event: ModelEvent) -> tuple[int, str, str, object]:
    """What an operator reads of it in the server's log: a level, a line and its values."""
    match event:
        case ModelLoaded(load_s=load_s):
            return logging.INFO, "model %s was loaded in %.1f s", event.model_id, load_s
        case ModelUnloaded(reason=reason):
            return logging.INFO, "model %s was unloaded: %s", event.model_id, reason
        case ModelLoadFailed(reason=reason):
            return logging.WARNING, "model %s could not be loaded: %s", event.model_id, _without_last_words(reason)
        case RunnerCrashed(reason=reason):
            return logging.WARNING, "the runner of %s ended: it %s", event.model_id, _without_last_words(reason)
        case ModelSuspended(suspended_s=suspended_s):
            return logging.ERROR, "model %s failed too often and is not tried for %.0f s", event.model_id, suspended_s
        case ModelPinChanged(pinned=pinned):
            return logging.INFO, "model %s: pinned is %s now", event.model_id, pinned


def _without_last_words(reason: str) -> str:
    """How it ended; what a runner's libraries wrote last stands behind it in the event alone: it may be anything."""
    return reason.partition(" (")[0].removeprefix("the runner ")
