"""What operators do with models: look at them, load, unload and pin them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from manent.domain.access import Principal, may_manage_models
from manent.domain.errors import PermissionDenied
from manent.domain.generation import ModelCard
from manent.domain.model_access import is_permitted, permitted
from manent.domain.model_host import ModelHost
from manent.domain.model_status import MemoryReport, ModelStatus


class Models(ModelHost, Protocol):
    """The models in memory, and the registry."""

    def models(self) -> Sequence[ModelCard]:
        """The registry, in its order."""
        ...

    def resolve(self, model: str) -> ModelCard:
        """The card of an id or alias; ModelNotFound if there is none."""
        ...


class ManageModels:
    """Who may use models may look at them; to change what is in memory takes a scope. What changes is an event.

    To a credential with a list of models, every other is a model that is not there.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    def cards(self, principal: Principal) -> list[ModelCard]:
        """The models of the registry that are there for ``principal``, in its order."""
        return [card for card in self._models.models() if self._is_there(principal, card.model_id)]

    def card(self, principal: Principal, model: str) -> ModelCard:
        """The card of an id or alias; ModelNotFound if there is none for ``principal``."""
        return permitted(principal, model, self._models.resolve)

    def status(self, principal: Principal, model: str) -> ModelStatus:
        """One model as it is now; ModelNotFound if there is none of this name for ``principal``."""
        return self._models.status(self.card(principal, model).model_id)

    def memory(self) -> MemoryReport:
        """The budget, and what the models hold of it: all of them."""
        return self._models.memory()

    async def load(self, principal: Principal, model: str) -> ModelStatus:
        """Load a model, and return once it is loaded.

        Raises:
            PermissionDenied: the credential lacks the scope.
            ModelNotFound, ModelLoadError, InsufficientMemory, EngineUnavailable: see ``ModelHost.load``.
        """
        return await self._models.load(self._managed(principal, model))

    async def unload(self, principal: Principal, model: str) -> bool:
        """Unload a model; False where it was not in memory.

        Raises:
            PermissionDenied: the credential lacks the scope.
            ModelNotFound: there is none of this name.
            ModelInUse: requests use it or wait for it.
        """
        return await self._models.unload(self._managed(principal, model), by=principal.subject)

    async def pin(self, principal: Principal, model: str, *, pinned: bool) -> ModelStatus:
        """Keep a model in memory, or no longer, until the next start.

        Raises:
            PermissionDenied: the credential lacks the scope.
            ModelNotFound: there is none of this name.
        """
        return await self._models.pin(self._managed(principal, model), pinned=pinned, by=principal.subject)

    def _managed(self, principal: Principal, model: str) -> str:
        if not may_manage_models(principal):
            raise PermissionDenied("this needs the scope models:manage or admin")
        return self.card(principal, model).model_id

    def _is_there(self, principal: Principal, model_id: str) -> bool:
        return is_permitted(principal.models, model_id, self._models.resolve)
