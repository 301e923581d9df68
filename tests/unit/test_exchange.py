"""A request's wait for its runner: bounded, also where the runner cannot even be killed."""

from __future__ import annotations

import asyncio

import pytest

from manent.adapters.inference.exchange import Exchange, RunnerKilled, RunnerLimits
from manent.adapters.inference.protocol import Progress, ServerFrame
from manent.domain.errors import EngineUnavailable


class Immortal:
    """A runner that says nothing, and does not end when it is killed."""

    limits = RunnerLimits(stall_timeout_s=0.05)

    def __init__(self) -> None:
        self.kills = 0

    async def send(self, frame: ServerFrame) -> None:
        """Take it, and say nothing."""

    def kill(self, reason: str) -> None:
        """Live on."""
        self.kills += 1


async def test_a_runner_that_does_not_even_end_holds_no_request() -> None:
    """A process in the kernel's uninterruptible sleep: killed after one silence, left alone after the second."""
    runner = Immortal()
    with pytest.raises(EngineUnavailable, match="did not even end"):
        await asyncio.wait_for(Exchange(runner, 1).receive(), 5)
    assert runner.kills == 1


async def test_progress_holds_the_wait_open_and_its_end_closes_it() -> None:
    """Signs of life are no answers; and a runner's end keeps its kind for each who waits."""
    runner = Immortal()
    exchange = Exchange(runner, 1)
    waiting = asyncio.create_task(exchange.receive())
    for _ in range(6):
        await asyncio.sleep(0.02)
        exchange.heard(Progress(id=1, processed_tokens=1, total_tokens=2))
    assert not waiting.done()
    exchange.heard(RunnerKilled("gone"))
    with pytest.raises(RunnerKilled, match="gone"):
        await waiting
    assert runner.kills == 0
