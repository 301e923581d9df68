"""A place at the first model of several that can be used: what a credential falls back to where a model cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from manent.domain.access import Principal
from manent.domain.admission import Priority, QueuePlace
from manent.domain.embedding import CHAT_TYPES
from manent.domain.errors import DomainError, EngineUnavailable, InsufficientMemory, ModelLoadError, ModelUnavailable
from manent.domain.model_access import is_permitted
from manent.domain.ports import InferenceEngine
from manent.domain.waiting import Gone

UNUSABLE = (ModelLoadError, InsufficientMemory, ModelUnavailable, EngineUnavailable)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceWish:
    """How a place is wanted; see ``InferenceEngine.place``."""

    priority: Priority = Priority.INTERACTIVE
    alone: bool = False
    gone: Gone | None = None


class PlaceAtOneOf:
    """Takes a place at one of ``models``, which are ids that ``principal`` may use, in their order."""

    def __init__(self, engine: InferenceEngine, principal: Principal, models: Sequence[str]) -> None:
        self._engine = engine
        self._principal = principal
        self._models = models

    async def take(self, wish: PlaceWish, stack: AsyncExitStack) -> QueuePlace:
        """The place, which is given back when ``stack`` is left.

        Raises:
            DomainError: as ``InferenceEngine.place`` for the last model that was tried.
        """
        asked = self._engine.resolve(self._models[0]).type
        types = CHAT_TYPES if asked in CHAT_TYPES else (asked,)
        first_error: DomainError | None = None
        for model in (model for model in self._models if self._engine.resolve(model).type in types):
            held = self._engine.place(model, priority=wish.priority, alone=wish.alone, gone=wish.gone)
            try:
                place = await held.__aenter__()
            except UNUSABLE as error:
                first_error = first_error or error
                continue
            # The registry has fallbacks of its own, which need not be for this credential.
            if is_permitted(self._principal.models, place.model_id, self._engine.resolve):
                stack.push_async_exit(held)
                return place
            await held.__aexit__(None, None, None)
            first_error = first_error or ModelUnavailable(f"model {model!r:.200} cannot be used now")
        raise first_error or ModelUnavailable(f"model {self._models[0]!r:.200} cannot be used now")
