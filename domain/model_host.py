"""What the domain needs of whoever holds the models in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from manent.domain.model_status import MemoryReport, ModelStatus


class ModelHost(Protocol):
    """Which models are in memory. They are named by id or alias; ModelNotFound where there is no such name."""

    def status(self, model: str) -> ModelStatus:
        """One model as it is now."""
        ...

    def memory(self) -> MemoryReport:
        """The budget and what the models hold of it, measured now, all models in the order of the registry."""
        ...

    async def load(self, model: str) -> ModelStatus:
        """Load a model now, or wait for the load that is under way; a recent failure does not keep it from a try.

        Raises:
            ModelLoadError, InsufficientMemory, EngineUnavailable: it cannot be loaded.
        """
        ...

    async def unload(self, model: str, *, by: str) -> bool:
        """Give a model's memory back; False where it held none.

        Raises:
            ModelInUse: requests use it or wait for it.
        """
        ...

    async def pin(self, model: str, *, pinned: bool, by: str) -> ModelStatus:
        """Say whether a model may be unloaded to make room or for being idle, until the next start."""
        ...

    def problems(self) -> Mapping[str, str]:
        """What keeps models from answering, by name, a sentence each; empty is well."""
        ...
