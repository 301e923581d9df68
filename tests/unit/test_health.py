"""Health: what keeps a server from answering, what is only worse than usual, and when the start is over."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.lru import LruContextCache
from manent.app.health import HealthCheck
from manent.app.projections import Contexts
from manent.app.sampling import Sampler
from manent.domain.model_status import MemoryReport, ModelStatus
from manent.domain.projections import CacheUnavailable
from manent.domain.residency import MemoryBudget, Phase
from manent.domain.usecases.issue_checkpoint import IssueCheckpoint
from tests.support.manent import World, make_world


class Looked:
    """A health check over a world whose parts a test breaks."""

    def __init__(self, home: Path) -> None:
        self.world: World = make_world()
        self.breaker = CircuitBreaker(period_s=60)
        near = LruContextCache(budget_bytes=1000)
        self.sampler = Sampler({})
        self.checkpoints = SimpleNamespace(age_s=None)
        self.check = HealthCheck(
            folders=[home, home / "database"],
            use_cases=self.world.manent,
            checkpoints=cast("IssueCheckpoint", self.checkpoints),
            checkpoint_interval_s=300,
            contexts=Contexts(cache=near, near=near, breaker=self.breaker),
            sampler=self.sampler,
        )


@pytest.fixture
def looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looked:
    """A check of a machine with room."""
    free_of(monkeypatch, 10**12)
    return Looked(tmp_path)


def free_of(patch: pytest.MonkeyPatch, free_bytes: int) -> None:
    """Have the disk so much room."""
    patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))


async def test_a_start_is_over_once_it_was_ready(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe of the start does not fail again when the server has troubles later."""
    monkeypatch.setattr(looked.world.engine, "problems", lambda: {"models": "still to be loaded: a"})
    health = await looked.check.look()
    assert (dict(health.problems), health.started) == ({"models": "still to be loaded: a"}, False)
    monkeypatch.setattr(looked.world.engine, "problems", dict)
    health = await looked.check.look()
    assert (dict(health.problems), dict(health.degraded), health.started) == ({}, {}, True)
    await looked.world.manent.live.drain(finish_s=0, close_s=0)
    health = await looked.check.look()
    assert (list(health.problems), health.started) == (["draining"], True)


def redis_is_away(looked: Looked) -> None:
    """It failed once."""
    with looked.breaker.attempt():
        raise CacheUnavailable("away")


def a_model_is_suspended(looked: Looked) -> None:
    """One of two."""
    models = (
        ModelStatus(model_id="a", phase=Phase.SUSPENDED, pinned=False, requests=0, failure="a secret path"),
        ModelStatus(model_id="b", phase=Phase.LOADED, pinned=False, requests=0),
    )
    report = MemoryReport(budget=MemoryBudget(total_bytes=1, reserved_bytes=0, margin_bytes=0), models=models)
    looked.world.engine.memory = lambda: report  # type: ignore[method-assign]  # of this one


DEGRADED: dict[str, Callable[[Looked], Any]] = {
    "redis": redis_is_away,
    "model a": a_model_is_suspended,
    "projection": lambda looked: looked.sampler.latest.update({"log": 20_000.0, "projection": 5.0}),
    "checkpoints": lambda looked: setattr(looked.checkpoints, "age_s", 1000.0),
}


@pytest.mark.parametrize("part", DEGRADED)
async def test_what_is_worse_than_usual_is_named_and_the_server_ready(looked: Looked, part: str) -> None:
    """Requests are served; whoever probes reads what to look at, and no reasons that are others' business."""
    DEGRADED[part](looked)
    health = await looked.check.look()
    assert (list(health.problems), list(health.degraded)) == ([], [part])
    assert "secret" not in health.degraded[part]


@pytest.mark.parametrize(("free_bytes", "problem", "degraded"), [(10**6, True, False), (5 * 10**8, False, True)])
async def test_a_disk_that_fills_up_is_told_in_time(
    *, looked: Looked, monkeypatch: pytest.MonkeyPatch, free_bytes: int, problem: bool, degraded: bool
) -> None:
    """First as a warning, then as what keeps requests from being recorded."""
    free_of(monkeypatch, free_bytes)
    health = await looked.check.look()
    assert ("disk" in health.problems, "disk" in health.degraded) == (problem, degraded)


async def test_the_fuller_of_two_disks_counts(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is elsewhere fills up its own."""
    free = {"database": 10**6}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free.get(path.name, 10**12)))
    assert "1 MB are free" in (await looked.check.look()).problems["disk"]


async def test_a_part_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look waits for it for long, no second question is put to it, and the others are known."""
    monkeypatch.setattr("manent.app.sampling.ANSWER_S", 0.02)
    asked, answer = [], asyncio.Event()

    async def hanging() -> float:
        asked.append(1)
        await answer.wait()
        return 7.0

    async def quick() -> float:
        return 3.0

    sampler = Sampler({"hangs": hanging, "quick": quick})
    for _ in range(3):
        await sampler.sample()
    assert (len(asked), sampler.latest, sampler.failed["hangs"]) == (1, {"quick": 3.0}, 3)
    answer.set()
    await sampler.sample()
    assert sampler.latest == {"hangs": 7.0, "quick": 3.0}
