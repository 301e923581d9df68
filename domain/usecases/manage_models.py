"""What operators do with models: look at them, load, unload and pin them."""

from __future__ import annotations

from manent.domain.access import Principal, may_manage_models
from manent.domain.errors import PermissionDenied
from manent.domain.model_host import ModelHost
from manent.domain.model_status import MemoryReport, ModelStatus


class ManageModels:
    """Whoever may use the server may look; to change what is in memory takes a scope. What changes is an event."""

    def __init__(self, models: ModelHost) -> None:
        self._models = models

    def status(self, model: str) -> ModelStatus:
        """One model as it is now; ModelNotFound if there is none of this name."""
        return self._models.status(model)

    def memory(self) -> MemoryReport:
        """The budget, and what the models hold of it."""
        return self._models.memory()

    async def load(self, principal: Principal, model: str) -> ModelStatus:
        """Load a model, and return once it is loaded.

        Raises:
            PermissionDenied: the credential lacks the scope.
            ModelNotFound, ModelLoadError, InsufficientMemory, EngineUnavailable: see ``ModelHost.load``.
        """
        _check(principal)
        return await self._models.load(model)

    async def unload(self, principal: Principal, model: str) -> bool:
        """Unload a model; False where it was not in memory.

        Raises:
            PermissionDenied: the credential lacks the scope.
            ModelNotFound: there is none of this name.
            ModelInUse: requests use it or wait for it.
        """
        _check(principal)
        return await self._models.unload(model, by=principal.subject)

    async def pin(self, principal: Principal, model: str, *, pinned: bool) -> ModelStatus:
        """Keep a model in memory, or no longer, until the next start.

        Raises:
            PermissionDenied: the credential lacks the scope.
            ModelNotFound: there is none of this name.
        """
        _check(principal)
        return await self._models.pin(model, pinned=pinned, by=principal.subject)


def _check(principal: Principal) -> None:
    if not may_manage_models(principal):
        raise PermissionDenied("this needs the scope models:manage or admin")
