"""Models without a process: they take no memory, and loading and unloading them only changes what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from manent.adapters.inference.memory import machine_budget
from manent.domain.errors import ModelNotFound
from manent.domain.generation import ModelCard
from manent.domain.model_status import MemoryReport, ModelStatus
from manent.domain.residency import Phase


class AlwaysLoaded:
    """Implements ``manent.domain.ports.ModelHost`` for models that are there from the beginning."""

    def __init__(self, cards: Sequence[ModelCard]) -> None:
        self._cards = tuple(cards)
        self._by_name: dict[str, ModelCard] = {}
        for card in cards:
            for name in (card.model_id, *card.aliases):
                self._by_name.setdefault(name, card)
        self._unloaded: set[str] = set()
        self._pinned: set[str] = set()

    def models(self) -> Sequence[ModelCard]:
        """The cards that it was given."""
        return self._cards

    def resolve(self, model: str) -> ModelCard:
        """The card of an id or alias; ModelNotFound if there is none."""
        card = self._by_name.get(model)
        if card is None:
            raise ModelNotFound(f"there is no model {model!r:.200}")
        return card

    def status(self, model: str) -> ModelStatus:
        """See ``ModelHost.status``."""
        model_id = self.resolve(model).model_id
        return ModelStatus(
            model_id=model_id,
            phase=Phase.UNLOADED if model_id in self._unloaded else Phase.LOADED,
            pinned=model_id in self._pinned,
            requests=0,
        )

    def memory(self) -> MemoryReport:
        """See ``ModelHost.memory``."""
        return MemoryReport(budget=machine_budget(), models=tuple(self.status(card.model_id) for card in self._cards))

    async def load(self, model: str) -> ModelStatus:
        """See ``ModelHost.load``."""
        self._unloaded.discard(self.resolve(model).model_id)
        return self.status(model)

    async def unload(self, model: str, *, by: str) -> bool:
        """See ``ModelHost.unload``."""
        model_id = self.resolve(model).model_id
        was_loaded = model_id not in self._unloaded
        self._unloaded.add(model_id)
        return was_loaded

    async def pin(self, model: str, *, pinned: bool, by: str) -> ModelStatus:
        """See ``ModelHost.pin``."""
        model_id = self.resolve(model).model_id
        (self._pinned.add if pinned else self._pinned.discard)(model_id)
        return self.status(model)

    def problems(self) -> Mapping[str, str]:
        """See ``ModelHost.problems``."""
        return {}
