"""Which models stay in memory: the budget, what each model holds, and the decisions that follow. Pure rules.

Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Where a model is in its life; ``suspended`` is not in memory, and kept out after repeated failures."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    SUSPENDED = "suspended"


class UnloadReason(StrEnum):
    """Why a model was unloaded on purpose."""

    REQUESTED = "requested"
    IDLE = "idle"
    EVICTED = "evicted"
    OVER_BUDGET = "over_budget"
    OUT_OF_MEMORY = "out_of_memory"
    SHUTTING_DOWN = "shutting_down"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBudget:
    """How the machine's memory is divided.

    Attributes:
        total_bytes: what the machine, or the container, has.
        reserved_bytes: for the system, this server and everybody else.
        margin_bytes: kept free, because models grow while they work and estimates are estimates.
    """

    total_bytes: int
    reserved_bytes: int
    margin_bytes: int

    @property
    def models_bytes(self) -> int:
        """What models may hold when another one is loaded."""
        return max(0, self.total_bytes - self.reserved_bytes - self.margin_bytes)

    @property
    def limit_bytes(self) -> int:
        """What models may hold at all: the margin is there to be grown into, and no further."""
        return max(0, self.total_bytes - self.reserved_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A model that holds memory, or is about to.

    Attributes:
        memory_bytes: what its process holds; while it loads, at least what is expected.
        leases: requests that use it or wait for it.
        idle_timeout_s: how long it may stay unused; None is for ever.
    """

    model_id: str
    phase: Phase
    memory_bytes: int
    leases: int = 0
    pinned: bool = False
    last_used_s: float = 0.0
    idle_timeout_s: float | None = None

    @property
    def evictable(self) -> bool:
        """Whether it may be unloaded to make room: loaded, unused and not pinned."""
        return self.phase is Phase.LOADED and self.leases == 0 and not self.pinned


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Load it, once the models of ``evict``, and those that are being unloaded already, are gone."""

    evict: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """There will be room when requests end, or loads and unloads that are under way."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """There is no room, and waiting makes none."""

    reason: str


Decision = Admit | Wait | Refuse


def decide_residency(
    residents: Iterable[Resident], *, model_id: str, needed_bytes: int, budget: MemoryBudget
) -> Decision:
    """Whether ``model_id``, which needs ``needed_bytes``, may be loaded now, and what has to go for it.

    Least recently used models go first, and none in vain. A model that is in use, pinned, loading or unloading never
    goes.
    """
    others = [found for found in residents if found.model_id != model_id and found.phase is not Phase.UNLOADING]
    excess_bytes = held_bytes(others) + needed_bytes - budget.models_bytes
    if excess_bytes <= 0:
        return Admit()
    evict = _least_recently_used(others, excess_bytes)
    if evict is not None:
        return Admit(evict=evict)
    staying_bytes = held_bytes(other for other in others if other.pinned)
    reason = (
        f"model {model_id} needs {gigabytes(needed_bytes)}; models may hold {gigabytes(budget.models_bytes)}, "
        f"and {_holders(others)}"
    )
    if staying_bytes + needed_bytes > budget.models_bytes:
        return Refuse(reason=reason)
    return Wait(reason=reason)


def decide_trim(residents: Iterable[Resident], *, budget: MemoryBudget) -> tuple[str, ...]:
    """Which unused models go because all together have grown over the budget, least recently used first."""
    staying = [resident for resident in residents if resident.phase is not Phase.UNLOADING]
    excess_bytes = held_bytes(staying) - budget.models_bytes
    chosen: list[str] = []
    for resident in _by_age(staying):
        if excess_bytes <= 0:
            break
        chosen.append(resident.model_id)
        excess_bytes -= resident.memory_bytes
    return tuple(chosen)


def decide_idle(residents: Iterable[Resident], *, now_s: float) -> tuple[str, ...]:
    """Which models were unused for longer than their idle timeout."""
    return tuple(
        resident.model_id
        for resident in _by_age(residents)
        if resident.idle_timeout_s is not None and now_s - resident.last_used_s >= resident.idle_timeout_s
    )


def held_bytes(residents: Iterable[Resident]) -> int:
    """What they hold together."""
    return sum(resident.memory_bytes for resident in residents)


def gigabytes(size_bytes: int) -> str:
    """A size as messages show it."""
    return f"{size_bytes / 1e9:.2f} GB"


def _least_recently_used(residents: Sequence[Resident], excess_bytes: int) -> tuple[str, ...] | None:
    """The models to unload so that ``excess_bytes`` become free; None where all that may go are not enough."""
    chosen: list[Resident] = []
    for resident in _by_age(residents):
        chosen.append(resident)
        if held_bytes(chosen) >= excess_bytes:
            break
    spare_bytes = held_bytes(chosen) - excess_bytes
    if spare_bytes < 0:
        return None
    evict = []
    for resident in reversed(chosen):  # the most recently used is the first to be spared
        if resident.memory_bytes <= spare_bytes:
            spare_bytes -= resident.memory_bytes
        else:
            evict.append(resident.model_id)
    return tuple(reversed(evict))


def _by_age(residents: Iterable[Resident]) -> list[Resident]:
    """Those that may go, least recently used first."""
    return sorted((resident for resident in residents if resident.evictable), key=lambda found: found.last_used_s)


def _holders(residents: Sequence[Resident]) -> str:
    if not residents:
        return "no other model holds any"
    return "; ".join(
        f"{resident.model_id} holds {gigabytes(resident.memory_bytes)} ({_why_it_stays(resident)})"
        for resident in residents
    )


def _why_it_stays(resident: Resident) -> str:
    if resident.pinned:
        return "pinned"
    if resident.phase is not Phase.LOADED:
        return resident.phase
    if resident.leases:
        return f"in use by {resident.leases} request{'s' if resident.leases > 1 else ''}"
    return "unused"
