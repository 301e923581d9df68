"""What operators see of the models: where each is in its life, what it holds, and the memory of them all."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.breaker import Circuit
from manent.domain.residency import MemoryBudget, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model as it is now.

    Attributes:
        memory_bytes: what its process holds; 0 where it has none.
        expected_bytes: what it is expected to need; None where nothing is known of it.
        requests: how many use it or wait for it; ``waiting`` is how many of them wait for a place.
        circuit: whether requests may go on to it.
        prefix_bytes: what its prefix cache keeps in memory, as of the last look.
        progress: of a load, the share of the expected memory that its process holds, 0 to 1.
        loading_s, idle_s: for how long it has been loading, or loaded and unused.
        failure: why it is suspended, or why its last load failed.
        retry_after_s: of a suspended model, when it is tried again.
    """

    model_id: str
    phase: Phase
    pinned: bool
    requests: int
    memory_bytes: int = 0
    expected_bytes: int | None = None
    pid: int | None = None
    progress: float | None = None
    loading_s: float | None = None
    idle_s: float | None = None
    idle_timeout_s: float | None = None
    failure: str | None = None
    retry_after_s: float | None = None
    waiting: int = 0
    circuit: Circuit = Circuit.CLOSED
    prefix_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReport:
    """The budget and what the models hold of it, measured now."""

    budget: MemoryBudget
    models: tuple[ModelStatus, ...]

    @property
    def used_bytes(self) -> int:
        """What the processes of all models hold together."""
        return sum(model.memory_bytes for model in self.models)

    @property
    def available_bytes(self) -> int:
        """What models may still take without one of them being unloaded."""
        return max(0, self.budget.models_bytes - self.used_bytes)
