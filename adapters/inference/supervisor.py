"""The life of one model's runner: started when first needed, bounded while it works, replaced when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from manent.adapters.inference.connection import Runner
from manent.adapters.inference.exchange import Exchange, RunnerLimits
from manent.adapters.inference.registry import RegisteredModel
from manent.domain.errors import DomainError, EngineBusy, EngineUnavailable, ModelLoadError
from manent.domain.model_events import ModelEvent, ModelLoaded, ModelLoadFailed, ModelUnloaded, RunnerCrashed
from manent.domain.ports import Clock

OnModelEvent = Callable[[ModelEvent], Awaitable[None]]

_START_ENDS_S = 10.0
"""How long a start that is given up may take to reap its process, beyond a deadline; what takes longer is left."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """Bounds of each model's runner.

    ``digest_folder`` is where digests of model files are remembered. For ``failure_memory_s`` after a failed load
    the same failure is answered without another attempt, so that a broken model costs one load per second at most.
    """

    digest_folder: Path
    limits: RunnerLimits = field(default_factory=RunnerLimits)
    in_flight_max: int = 64
    failure_memory_s: float = 1.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """A load that failed, and until when it is not repeated, on the loop's clock."""

    message: str
    until_s: float


class RunnerSupervisor:
    """Everything that concerns the runner of one model. Belongs to one event loop."""

    def __init__(
        self, model: RegisteredModel, *, settings: SupervisorSettings, clock: Clock, on_event: OnModelEvent
    ) -> None:
        self._model = model
        self._settings = settings
        self._clock = clock
        self._on_event = on_event
        self._runner: Runner | None = None
        self._starting: asyncio.Task[Runner] | None = None
        self._failure: _Failure | None = None
        self._in_flight = 0
        self._closed = False

    @property
    def runner(self) -> Runner | None:
        """The runner that takes requests now, if there is one."""
        return self._runner if self._runner is not None and self._runner.alive else None

    @property
    def in_flight(self) -> int:
        """How many requests are waiting for the model or being worked on."""
        return self._in_flight

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """One of the bounded places for requests, from before the prompt is rendered until the answer ended.

        Raises:
            EngineBusy: as many requests as the bound allows have one.
        """
        if self._in_flight >= self._settings.in_flight_max:
            raise EngineBusy(f"{self._in_flight} requests are waiting for model {self._model.card.model_id} already")
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    @contextlib.asynccontextmanager
    async def exchange(self) -> AsyncIterator[tuple[Runner, Exchange]]:
        """One exchange with a runner, which is started if there is none; a place bounds how many there are.

        Raises:
            ModelLoadError: the model could not be loaded, now or a moment ago.
            EngineUnavailable: the runner ended before it took the request, or the server is closing.
        """
        runner = await self._running()
        with runner.exchange() as exchange:
            yield runner, exchange

    async def unload(self, reason: str, *, deadline_s: float) -> None:
        """Stop the runner, or its start, and give its memory back; the next request starts another."""
        if (starting := self._starting) is not None:
            starting.cancel()
            await asyncio.wait({starting}, timeout=deadline_s + _START_ENDS_S)
        runner, self._runner = self._runner, None
        if runner is None:
            return
        unloaded = runner.alive
        await runner.aclose(deadline_s)
        if unloaded:
            model_id = self._model.card.model_id
            await self._tell(ModelUnloaded(model_id=model_id, reason=reason, unloaded_at_us=self._clock.now_us()))

    async def aclose(self, deadline_s: float) -> None:
        """Stop for good. Requests that are still in flight get EngineUnavailable."""
        self._closed = True
        await self.unload("shutting_down", deadline_s=deadline_s)

    async def _running(self) -> Runner:
        """The runner; one start serves all who wait for it, and goes on when one of them is cancelled."""
        if (runner := self.runner) is not None:
            return runner
        if self._closed:
            raise EngineUnavailable("the server is shutting down")
        if self._failure is not None and asyncio.get_running_loop().time() < self._failure.until_s:
            raise ModelLoadError(self._failure.message)
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name=f"load-{self._model.card.model_id}")
            self._starting.add_done_callback(self._started)
        starting = self._starting
        await asyncio.wait({starting})
        if starting.cancelled():
            raise EngineUnavailable(f"model {self._model.card.model_id} was unloaded while it was being loaded")
        try:
            return starting.result()
        except ModelLoadError as error:
            # A new exception for each of the callers: one that is raised many times grows its traceback.
            raise ModelLoadError(error.message) from None

    async def _start(self) -> Runner:
        model_id = self._model.card.model_id
        if (crashed := self._runner) is not None:
            # Reaped before its successor needs the memory.
            await crashed.aclose(0)
        try:
            runner = await Runner.start(
                self._model.path,
                digest_folder=self._settings.digest_folder,
                limits=self._settings.limits,
                on_crash=self._crashed,
            )
        except ModelLoadError as error:
            until_s = asyncio.get_running_loop().time() + self._settings.failure_memory_s
            self._failure = _Failure(error.message, until_s)
            await self._tell(
                ModelLoadFailed(model_id=model_id, reason=error.message, failed_at_us=self._clock.now_us())
            )
            raise
        self._runner, self._failure = runner, None
        facts = runner.facts
        await self._tell(
            ModelLoaded(
                model_id=model_id,
                weights_digest=facts.weights_digest,
                memory_bytes=facts.memory_bytes,
                load_s=facts.load_s,
                pid=runner.pid,
                loaded_at_us=self._clock.now_us(),
            )
        )
        return runner

    def _started(self, starting: asyncio.Task[Runner]) -> None:
        self._starting = None
        if not starting.cancelled():
            starting.exception()  # every caller may be gone, and nobody else would ask for it

    async def _crashed(self, reason: str, requests: int) -> None:
        await self._tell(
            RunnerCrashed(
                model_id=self._model.card.model_id,
                reason=reason,
                requests=requests,
                crashed_at_us=self._clock.now_us(),
            )
        )

    async def _tell(self, event: ModelEvent) -> None:
        """Report what happened. That it cannot be recorded stops no model: the log's troubles have their own alarm."""
        try:
            await self._on_event(event)
        except DomainError as error:
            _logger.warning("%s of %s was not recorded: %s", type(event).__name__, event.model_id, error.message)
