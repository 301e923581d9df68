"""What the supervisor of a model and the manager of all of them share: settings, and what they expect of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from manent.adapters.inference.admission import AdmissionLimits
from manent.adapters.inference.connection import OnCrash, OnProcess, Runner
from manent.adapters.inference.exchange import RunnerLimits
from manent.adapters.inference.memory import machine_budget
from manent.adapters.inference.prefix_settings import PrefixSettings
from manent.adapters.inference.process import RunnerCommand
from manent.domain.errors import InsufficientMemory
from manent.domain.residency import MemoryBudget

_SUSPECT_SHARE = 4
_LOAD_EXTRA_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """Bounds of each model's runner, and of all together.

    Attributes:
        digest_folder: where digests of model files are remembered.
        prefix: the runners' prefix caches; None is for runners without.
        admission: the bounds of each model's queue.
        failure_memory_s: after a failed load the same failure is answered for so long without another attempt, and
            twice as long each time when that repeats itself.
        budget: looked at anew for every decision.
        memory_wait_s: how long a load waits for room.
        retry_backoff_s: how long after memory ran out the second attempt is made.
        idle_timeout_s: how long a model may stay unused, where its entry says nothing; 0 is for ever.
        watch_interval_s: how often idle models and the budget are looked after.
        ping_interval_s: how often a runner's engine thread is asked whether it lives.
    """

    digest_folder: Path
    prefix: PrefixSettings | None = None
    limits: RunnerLimits = field(default_factory=RunnerLimits)
    admission: AdmissionLimits = field(default_factory=AdmissionLimits)
    failure_memory_s: float = 1.0
    budget: Callable[[], MemoryBudget] = machine_budget
    memory_wait_s: float = 30.0
    retry_backoff_s: float = 1.0
    idle_timeout_s: float = 0.0
    watch_interval_s: float = 1.0
    ping_interval_s: float = 5.0

    @property
    def suspect_s(self) -> float:
        """After how long without a sign of life a runner gets no new requests; it is killed after four times that."""
        return self.limits.stall_timeout_s / _SUSPECT_SHARE

    @property
    def load_bound_s(self) -> float:
        """The longest that a request waits for its model: two attempts, each with its wait for room, and the rest."""
        return 2 * (self.memory_wait_s + self.limits.load_timeout_s) + self.retry_backoff_s + _LOAD_EXTRA_S


class NoRoom(InsufficientMemory):
    """There was no room to begin a load in."""


class Room(Protocol):
    """Memory, as far as a model that is being loaded needs it. What waits here waits a bounded time."""

    async def make_for(self, model_id: str, needed_bytes: int, reserve: Callable[[int], None]) -> None:
        """Have room reserved, and others unloaded for it.

        Raises:
            NoRoom: there is none, and none came free in time.
        """
        ...

    async def free_unused(self, model_id: str) -> None:
        """Unload all other models that nobody uses: the system's memory ran out."""
        ...

    async def exceeded_by(self, model_id: str) -> int:
        """By how many bytes all models together are over the limit, after unused others were unloaded."""
        ...

    def changed(self) -> None:
        """Take note that decisions about memory may turn out differently now."""
        ...


class StartRunner(Protocol):
    """How a runner is started: ``Runner.start``."""

    async def __call__(
        self, command: RunnerCommand, *, limits: RunnerLimits, on_crash: OnCrash, on_process: OnProcess
    ) -> Runner:
        """A runner whose model is ready."""
        ...
