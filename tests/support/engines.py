"""Engines for tests: real runners on a given folder, and short ways to ask them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from manent.adapters.inference.admission import AdmissionLimits
from manent.adapters.inference.connection import Runner
from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.exchange import RunnerLimits
from manent.adapters.inference.registry import RegisteredModel, Registry
from manent.adapters.inference.supervision import SupervisorSettings
from manent.domain.generation import (
    GenerationRequest,
    GenerationResult,
    ModelCard,
    RenderedPrompt,
    SamplingParameters,
    TextDelta,
)
from manent.domain.messages import Message, Role, TextPart
from manent.domain.model_events import ModelEvent
from manent.domain.ports import InferenceEngine
from manent.domain.residency import MemoryBudget
from tests.support import sampling
from tests.support.fakes import FakeClock
from tests.support.runners import runners_of, runs

MODEL = "starter"
parameters = sampling.parameters
CARD = ModelCard(model_id=MODEL, context_length=8192, created_at_s=0, aliases=("default",))


class RecordedEvents(list[ModelEvent]):
    """An ``on_event`` that keeps what it is told."""

    async def __call__(self, event: ModelEvent) -> None:
        """Keep the event."""
        self.append(event)

    @property
    def names(self) -> list[str]:
        """The types of the events."""
        return [type(event).__name__ for event in self]


def supervisor_settings(
    folder: Path,
    *,
    limits: RunnerLimits | None = None,
    in_flight_max: int = 64,
    failure_memory_s: float = 1.0,
    memory_bytes: int | None = None,
    memory_wait_s: float = 30.0,
    idle_timeout_s: float = 0.0,
    ping_interval_s: float = 5.0,
) -> SupervisorSettings:
    """Settings that do not depend on the machine; ``memory_bytes`` is what models may hold, without a margin."""
    budget = MemoryBudget(total_bytes=memory_bytes or 10**12, reserved_bytes=0, margin_bytes=0)
    return SupervisorSettings(
        digest_folder=folder / ".digests",
        limits=limits or RunnerLimits(load_timeout_s=90, stall_timeout_s=60),
        admission=AdmissionLimits(in_flight_max=in_flight_max),
        failure_memory_s=failure_memory_s,
        budget=lambda: budget,
        memory_wait_s=memory_wait_s,
        retry_backoff_s=0.1,
        idle_timeout_s=idle_timeout_s,
        watch_interval_s=0.1,
        ping_interval_s=ping_interval_s,
    )


@asynccontextmanager
async def runner_engine(
    folder: Path,
    *,
    events: RecordedEvents | None = None,
    limits: RunnerLimits | None = None,
    in_flight_max: int = 64,
    failure_memory_s: float = 1.0,
) -> AsyncGenerator[RunnerEngine, None]:
    """A RunnerEngine with one model; closed, and its process gone, at the end of the block."""
    settings = supervisor_settings(
        folder.parent, limits=limits, in_flight_max=in_flight_max, failure_memory_s=failure_memory_s
    )
    async with engine_of([RegisteredModel(card=CARD, path=folder)], settings, events=events) as engine:
        yield engine


@asynccontextmanager
async def engine_of(
    models: Sequence[RegisteredModel], settings: SupervisorSettings, *, events: RecordedEvents | None = None
) -> AsyncGenerator[RunnerEngine, None]:
    """A RunnerEngine with these models; closed, and its processes gone, at the end of the block."""
    engine = RunnerEngine(
        Registry(models),
        settings=settings,
        clock=FakeClock(),
        on_event=RecordedEvents() if events is None else events,
    )
    engine.start()
    try:
        yield engine
    finally:
        await engine.aclose(2.0)


def running(engine: RunnerEngine) -> Runner:
    """The runner that is up."""
    runner = engine.supervisor(MODEL).runner
    assert runner is not None
    return runner


def said(role: Role, text: str) -> Message:
    """A message."""
    return Message(message_id="msg_1", role=role, content=(TextPart(text=text),))


def user(text: str) -> Message:
    """A user's message."""
    return said(Role.USER, text)


def request(
    prompt: RenderedPrompt, effective: SamplingParameters, *, completion_id: str = "c1", model_id: str = MODEL
) -> GenerationRequest:
    """A request for one generation."""
    return GenerationRequest(completion_id=completion_id, model_id=model_id, prompt=prompt, parameters=effective)


async def collect(engine: InferenceEngine, asked: GenerationRequest) -> tuple[list[TextDelta], GenerationResult]:
    """All deltas and the result of a generation that ends well."""
    outputs = [output async for output in engine.generate(asked)]
    *deltas, result = outputs
    assert isinstance(result, GenerationResult)
    return [delta for delta in deltas if isinstance(delta, TextDelta)], result


async def answer(engine: InferenceEngine, text: str, effective: SamplingParameters) -> GenerationResult:
    """The result for a single user's message."""
    prompt = await engine.render(MODEL, [user(text)])
    return (await collect(engine, request(prompt, effective)))[1]


async def eventually_gone(pid: int, *, within_s: float = 5.0) -> bool:
    """Whether a process ends in time (a zombie has ended)."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while loop.time() < until:
        if not runs(pid):
            return True
        await asyncio.sleep(0.02)
    return False


async def first_runners_of(pid: int) -> list[int]:
    """A process's runners, as soon as it has any."""
    await until(lambda: runners_of(pid) != [])
    return runners_of(pid)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process or task brings about; a test's own timeout is the bound."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.01)
