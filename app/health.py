"""Whether a Manent can work, looked at part by part: what stands in the way, and what is only worse than usual."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from manent.app.projections import Contexts
from manent.app.sampling import Sampler
from manent.app.use_case_set import UseCases
from manent.domain.breaker import Circuit
from manent.domain.errors import DomainError
from manent.domain.health import Health
from manent.domain.residency import Phase
from manent.domain.usecases.issue_checkpoint import IssueCheckpoint

DISK_FULL_BYTES = 100_000_000
DISK_LOW_BYTES = 1_000_000_000
LAG_EVENTS_MAX = 10_000
CHECKPOINTS_MISSED_MAX = 3


def free_for(folders: Iterable[Path]) -> int:
    """Bytes that are free where there are fewest."""
    return min(shutil.disk_usage(folder).free for folder in folders)


class HealthCheck:
    """Looks, for whoever probes. What it says is read without a credential: no paths, names or reasons of others."""

    def __init__(
        self,
        *,
        folders: Sequence[Path],
        use_cases: UseCases,
        checkpoints: IssueCheckpoint,
        checkpoint_interval_s: float,
        contexts: Contexts,
        sampler: Sampler,
    ) -> None:
        self._folders = folders
        self._use_cases = use_cases
        self._checkpoints = checkpoints
        self._checkpoint_interval_s = checkpoint_interval_s
        self._contexts = contexts
        self._sampler = sampler
        self._started = False
        self.last: Health | None = None

    async def look(self) -> Health:
        """How it is now."""
        problems, degraded = await self._store(), dict(self._degraded())
        free_bytes = await asyncio.to_thread(free_for, self._folders)
        if free_bytes < DISK_FULL_BYTES:
            problems["disk"] = (
                f"{free_bytes // 1_000_000} MB are free for the data folder; nothing more is recorded soon"
            )
        elif free_bytes < DISK_LOW_BYTES:
            degraded["disk"] = f"{free_bytes // 1_000_000} MB are free for the data folder; free some space"
        problems |= self._use_cases.engine.problems()
        if not any(card.available for card in self._use_cases.engine.models()):
            problems["models"] = "no model of the registry is installed; run `manent models install`"
        if self._use_cases.live.draining:
            problems["draining"] = "the server is shutting down"
        self._started = self._started or not problems
        self.last = Health(problems=problems, degraded=degraded, started=self._started)
        return self.last

    async def _store(self) -> dict[str, str]:
        try:
            await self._use_cases.store.ping()
        except DomainError as error:
            return {"store": error.message}
        if kept := self._use_cases.closing.kept:
            return {"store": f"{kept} completions ended and could not be recorded yet"}
        return {}

    def _degraded(self) -> Iterator[tuple[str, str]]:
        breaker = self._contexts.breaker
        if breaker is not None and breaker.state is not Circuit.CLOSED:
            yield "redis", "Redis does not answer; contexts come from the log"
        latest = self._sampler.latest
        lag_events = latest.get("log", 0.0) - latest["projection"] if "projection" in latest else 0.0
        if lag_events > LAG_EVENTS_MAX:
            yield "projection", f"the shared contexts are {lag_events:.0f} events behind the log"
        elif "projection" in self._sampler.failed and "projection" not in latest:
            yield "projection", "the checkpoint of the shared contexts cannot be read"
        for model in self._use_cases.engine.memory().models:
            if model.phase is Phase.SUSPENDED:
                yield f"model {model.model_id}", "it failed and is not tried for a while; `manent models ps` says why"
        age_s = self._checkpoints.age_s
        if age_s is not None and age_s > CHECKPOINTS_MISSED_MAX * self._checkpoint_interval_s:
            yield "checkpoints", f"none was signed for {age_s:.0f} s; the server's log says why"
