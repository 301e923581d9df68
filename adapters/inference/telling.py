"""What becomes of models, told as events; and what earlier events said of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from manent.adapters.inference.connection import Runner
from manent.domain.errors import DomainError
from manent.domain.model_events import (
    ModelEvent,
    ModelLoaded,
    ModelLoadFailed,
    ModelPinChanged,
    ModelSuspended,
    ModelUnloaded,
    RunnerCrashed,
)
from manent.domain.ports import Clock
from manent.domain.residency import UnloadReason

OnModelEvent = Callable[[ModelEvent], Awaitable[None]]
Recall = Callable[[str], Awaitable[int | None]]
"""The memory that a model held after its last load, as the log has it; in bytes."""

_TELL_S = 5.0
_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


async def nothing_is_known(_model_id: str) -> int | None:
    """The recollection of whoever keeps no log."""
    return None


class Teller:
    """Reports what happened. That it cannot be recorded stops no model: the log's troubles have their own alarm."""

    def __init__(self, on_event: OnModelEvent, *, clock: Clock, recall: Recall = nothing_is_known) -> None:
        self._on_event = on_event
        self._clock = clock
        self._recall = recall
        self._memory_bytes: dict[str, int | None] = {}

    def memory_of(self, model_id: str) -> int | None:
        """What a model held after its last load, as far as it was recalled or told."""
        return self._memory_bytes.get(model_id)

    async def recall(self, model_id: str) -> None:
        """Look up what a model held after its last load, once."""
        if model_id not in self._memory_bytes:
            self._memory_bytes[model_id] = await self._bounded(self._recall(model_id), f"the memory of {model_id}")

    async def loaded(self, model_id: str, runner: Runner) -> None:
        """A runner is ready."""
        facts = runner.facts
        self._memory_bytes[model_id] = facts.memory_bytes
        await self._tell(
            ModelLoaded(
                model_id=model_id,
                weights_digest=facts.weights_digest,
                memory_bytes=facts.memory_bytes,
                load_s=facts.load_s,
                pid=runner.pid,
                loaded_at_us=self._clock.now_us(),
            )
        )

    async def load_failed(self, model_id: str, reason: str) -> None:
        """A model could not be loaded."""
        await self._tell(ModelLoadFailed(model_id=model_id, reason=reason, failed_at_us=self._clock.now_us()))

    async def unloaded(
        self, model_id: str, reason: UnloadReason, *, memory_bytes: int, evicted_for: str | None, by: str | None
    ) -> None:
        """A runner was stopped on purpose."""
        await self._tell(
            ModelUnloaded(
                model_id=model_id,
                reason=reason.value,
                unloaded_at_us=self._clock.now_us(),
                memory_bytes=memory_bytes,
                evicted_for=evicted_for,
                unloaded_by=by,
            )
        )

    async def crashed(self, model_id: str, reason: str, requests: int) -> None:
        """A runner ended without being asked to."""
        await self._tell(
            RunnerCrashed(model_id=model_id, reason=reason, requests=requests, crashed_at_us=self._clock.now_us())
        )

    async def suspended(self, model_id: str, reason: str, *, failures: int, suspended_s: float) -> None:
        """A model is not tried for a while."""
        await self._tell(
            ModelSuspended(
                model_id=model_id,
                reason=reason,
                failures=failures,
                suspended_s=suspended_s,
                suspended_at_us=self._clock.now_us(),
            )
        )

    async def pin_changed(self, model_id: str, *, pinned: bool, by: str) -> None:
        """An operator pinned a model, or took the pin away."""
        await self._tell(
            ModelPinChanged(model_id=model_id, pinned=pinned, changed_by=by, changed_at_us=self._clock.now_us())
        )

    async def _tell(self, event: ModelEvent) -> None:
        await self._bounded(self._on_event(event), f"{type(event).__name__} of {event.model_id}")

    async def _bounded(self, work: Awaitable[_T], what: str) -> _T | None:
        try:
            async with asyncio.timeout(_TELL_S):
                return await work
        except TimeoutError:
            _logger.warning("%s: the log did not answer within %g s", what, _TELL_S)
        except DomainError as error:
            _logger.warning("%s: the log refused it: %s", what, error.message)
        return None
