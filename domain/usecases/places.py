"""A place at the first model of several that can be used: what a credential falls back to where a model cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from manent.domain.access import Principal
from manent.domain.admission import Priority, QueuePlace
from manent.domain.embedding import CHAT_TYPES
from manent.domain.errors import DomainError, EngineUnavailable, InsufficientMemory, ModelLoadError, ModelUnavailable
from manent.domain.made_often import made_often
from manent.domain.model_access import is_permitted
from manent.domain.ports import InferenceEngine
from manent.domain.waiting import Gone

UNUSABLE = (ModelLoadError, InsufficientMemory, ModelUnavailable, EngineUnavailable)


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceWish:
    """How a place is wanted; see ``InferenceEngine.place``."""

    priority: Priority = Priority.INTERACTIVE
    alone: bool = False
    gone: Gone | None = None


class PlaceAtOneOf:
    """A place, for as long as a block lasts, at one of ``models``: ids that ``principal`` may use, in their order.

    Raises:
        DomainError: as ``InferenceEngine.place`` for the first model that could not be used.
    """

    def __init__(self, engine: InferenceEngine, principal: Principal, models: Sequence[str], wish: PlaceWish) -> None:
        self._engine = engine
        self._principal = principal
        self._models = models
        self._wish = wish

    async def __aenter__(self) -> QueuePlace:
        wish, resolve = self._wish, self._engine.resolve
        first_error: DomainError | None = None
        for model in self._of_one_kind():
            held = self._engine.place(model, priority=wish.priority, alone=wish.alone, gone=wish.gone)
            try:
                place = await held.__aenter__()
            except UNUSABLE as error:
                first_error = first_error or error
                continue
            # The registry has fallbacks of its own, which need not be for this credential.
            if is_permitted(self._principal.models, place.model_id, resolve):
                self._held = held
                return place
            await held.__aexit__(None, None, None)
            first_error = first_error or ModelUnavailable(f"model {model!r:.200} cannot be used now")
        raise first_error or ModelUnavailable(f"model {self._models[0]!r:.200} cannot be used now")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._held.__aexit__(kind, error, trace)

    def _of_one_kind(self) -> Sequence[str]:
        """Those that do what the first does."""
        if len(self._models) == 1:
            return self._models
        asked = self._engine.resolve(self._models[0]).type
        types = CHAT_TYPES if asked in CHAT_TYPES else (asked,)
        return [model for model in self._models if self._engine.resolve(model).type in types]
