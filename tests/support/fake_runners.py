"""Runners without processes, for tests of what is decided about them: they load, hold memory, crash and end as told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from manent.adapters.inference.connection import OnCrash, OnProcess, Runner
from manent.adapters.inference.exchange import RunnerLimits
from manent.adapters.inference.manager import ModelManager
from manent.adapters.inference.process import RunnerCommand
from manent.adapters.inference.protocol import RunnerFacts
from manent.adapters.inference.registry import RegisteredModel, Registry
from manent.adapters.inference.supervision import SupervisorSettings
from manent.adapters.inference.telling import Teller
from manent.domain.generation import ModelCard
from tests.support.engines import RecordedEvents, supervisor_settings
from tests.support.fakes import FakeClock
from tests.support.runners import runner_facts

NO_PROCESS = 2**22 + 1
"""Above what a process's id can be, so that nothing is measured of a process that is not there."""


def model(model_id: str, *, size_bytes: int | None = None, **more: Any) -> RegisteredModel:
    """A registered model; ``size_bytes`` is what is set aside for it."""
    card = ModelCard(model_id=model_id, context_length=100, created_at_s=0)
    return RegisteredModel(card=card, path=Path("/none") / model_id, memory_bytes=size_bytes, **more)


@dataclass
class FakeRunner:
    """What of a runner the supervisor and the manager use."""

    model_id: str
    facts: RunnerFacts
    on_crash: OnCrash
    pid: int
    silent_s: float = 0.0
    alive: bool = True
    pings: int = 0
    prefix_bytes: int = 0
    ends: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def held_bytes(self) -> int:
        """What it was made to hold, until it is gone."""
        return 0 if self.ends.is_set() else self.facts.memory_bytes

    @contextmanager
    def exchange(self) -> Iterator[object]:
        """Nothing is exchanged."""
        yield object()

    async def ping(self) -> None:
        """Count."""
        self.pings += 1

    async def crash(self, reason: str = "it crashed", requests: int = 0) -> None:
        """End without being asked to."""
        self.alive = False
        self.ends.set()
        await self.on_crash(reason, requests)

    async def aclose(self, deadline_s: float) -> None:
        """End, in some turns of the loop."""
        self.alive = False
        await asyncio.sleep(0)
        self.ends.set()


Behavior = Callable[[str], Exception | None]


class FakeRunners:
    """Starts runners; ``sizes_bytes`` is what each holds, ``fails`` says what a load raises, ``gate`` holds loads."""

    def __init__(self, sizes_bytes: dict[str, int], *, fails: Behavior = lambda _: None) -> None:
        self.sizes_bytes = sizes_bytes
        self.fails = fails
        self.gate = asyncio.Event()
        self.gate.set()
        self.started: list[FakeRunner] = []
        self.loads: list[str] = []
        self._pids = itertools.count(NO_PROCESS)

    @property
    def alive(self) -> list[str]:
        """The models that have a runner now."""
        return [runner.model_id for runner in self.started if not runner.ends.is_set()]

    @property
    def held_bytes(self) -> int:
        """What all runners hold."""
        return sum(runner.held_bytes for runner in self.started)

    def of(self, model_id: str) -> FakeRunner:
        """The latest runner of a model."""
        return next(runner for runner in reversed(self.started) if runner.model_id == model_id)

    async def __call__(
        self, command: RunnerCommand, *, limits: RunnerLimits, on_crash: OnCrash, on_process: OnProcess
    ) -> Runner:
        """See ``StartRunner``."""
        model_id = command.model_folder.name
        self.loads.append(model_id)
        pid = next(self._pids)
        on_process(pid)
        await asyncio.sleep(0)
        await self.gate.wait()
        if (error := self.fails(model_id)) is not None:
            raise error
        facts = runner_facts(memory_bytes=self.sizes_bytes[model_id])
        runner = FakeRunner(model_id, facts, on_crash, pid)
        self.started.append(runner)
        return cast("Runner", runner)


@dataclass
class Managed:
    """A manager over fake runners, and what it told."""

    manager: ModelManager
    runners: FakeRunners
    events: RecordedEvents

    @asynccontextmanager
    async def used(self, name: str) -> AsyncGenerator[str, None]:
        """A request: a place, and an exchange with the model that it is at; its id."""
        async with self.manager.place(name) as place:
            supervisor = self.manager.supervisor(place.model_id)
            async with supervisor.exchange():
                yield place.model_id
            supervisor.circuit.forgive()

    async def use(self, *names: str) -> None:
        """Requests, one after the other."""
        for name in names:
            async with self.used(name):
                pass


@asynccontextmanager
async def managed(
    models: Sequence[RegisteredModel],
    sizes_bytes: dict[str, int] | Iterable[tuple[str, int]] = (),
    *,
    settings: SupervisorSettings | None = None,
    fails: Behavior = lambda _: None,
    start: bool = False,
) -> AsyncGenerator[Managed, None]:
    """A manager; each model holds what is set aside for it, unless ``sizes_bytes`` says something else."""
    sizes = {found.card.model_id: found.memory_bytes or 1 for found in models} | dict(sizes_bytes)
    runners, events = FakeRunners(sizes, fails=fails), RecordedEvents()
    manager = ModelManager(
        Registry(models),
        settings=settings or supervisor_settings(Path("/none")),
        teller=Teller(events, clock=FakeClock()),
        start_runner=runners,
    )
    if start:
        manager.start()
    try:
        yield Managed(manager, runners, events)
    finally:
        await manager.aclose(1.0)
