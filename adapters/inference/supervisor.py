"""The life of one model's runner: loaded when first needed, bounded while it works, replaced when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic

from manent.adapters.inference.admission import Admission
from manent.adapters.inference.circuit import ModelCircuit
from manent.adapters.inference.connection import Runner
from manent.adapters.inference.exchange import Exchange
from manent.adapters.inference.launch import Launch
from manent.adapters.inference.memory import expected_bytes
from manent.adapters.inference.registry import RegisteredModel
from manent.adapters.inference.supervision import Room, StartRunner, SupervisorSettings
from manent.adapters.inference.telling import Teller
from manent.domain.admission import Priority, QueuePlace
from manent.domain.breaker import BreakerPolicy
from manent.domain.errors import DomainError, EngineUnavailable, InsufficientMemory, ModelLoadError, ModelUnavailable
from manent.domain.model_status import ModelStatus
from manent.domain.residency import Phase, Resident, UnloadReason
from manent.domain.waiting import Gone

_ENDS_S = 20.0
"""How long a load that is given up, or a runner that is stopped, may take beyond its deadline; then it is left."""


class RunnerSupervisor:
    """Everything that concerns the runner of one model. Belongs to one event loop."""

    def __init__(
        self,
        model: RegisteredModel,
        *,
        settings: SupervisorSettings,
        teller: Teller,
        room: Room,
        start_runner: StartRunner = Runner.start,
    ) -> None:
        self.model_id = model.card.model_id
        self.pinned = model.pinned
        self.circuit = ModelCircuit(self.model_id, BreakerPolicy(open_s=settings.failure_memory_s))
        self._model = model
        self._settings = settings
        self._teller = teller
        self._room = room
        self._start_runner = start_runner
        self._admission = Admission(self.model_id, settings.admission)
        self._exchanges, self._last_used_s = 0, 0.0
        self._runner: Runner | None = None
        self._launch: Launch | None = None
        self._loading: asyncio.Task[Runner] | None = None
        self._loading_since_s = 0.0
        self._ending: Runner | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def runner(self) -> Runner | None:
        """The runner that takes requests now, if there is one."""
        return self._runner if self._runner is not None and self._runner.alive else None

    @property
    def leases(self) -> int:
        """How many requests keep the model in memory: each has a place, or an exchange, or both."""
        return max(self._admission.in_flight, self._exchanges)

    @property
    def unloading(self) -> asyncio.Task[None] | None:
        """The unload that is under way, if one is."""
        return self._unloading

    @property
    def phase(self) -> Phase:
        """Where the model is in its life."""
        if self._unloading is not None:
            return Phase.UNLOADING
        if self._loading is not None:
            return Phase.LOADING
        if self.runner is not None:
            return Phase.LOADED
        return Phase.SUSPENDED if self.circuit.is_open else Phase.UNLOADED

    @asynccontextmanager
    async def place(
        self, priority: Priority = Priority.INTERACTIVE, *, alone: bool = False, gone: Gone | None = None
    ) -> AsyncGenerator[QueuePlace, None]:
        """One of the bounded places for requests, from before the prompt is rendered until the answer ended.

        Raises as ``Admission.place``, and ModelLoadError, InsufficientMemory, ModelUnavailable: it failed before, and
        is not tried again so soon.
        """
        try:
            async with self._admission.place(priority, alone=alone, gone=gone) as place:
                with self.circuit.trial():
                    yield place
        finally:
            self._used()

    @asynccontextmanager
    async def exchange(self) -> AsyncGenerator[tuple[Runner, Exchange], None]:
        """One exchange with a runner, which is started if there is none; a place bounds how many there are.

        Raises:
            ModelLoadError, InsufficientMemory: the model could not be loaded, now or a moment ago.
            ModelUnavailable: it crashed again and again, or its runner hangs.
            EngineUnavailable: the runner ended before it took the request, or the server is closing.
        """
        self._exchanges += 1
        try:
            runner = await self.load()
            with runner.exchange() as exchange:
                yield runner, exchange
        finally:
            self._exchanges -= 1
            self._used()

    async def load(self) -> Runner:
        """The runner; one load serves all who wait for it, and goes on when one of them is cancelled.

        Raises as ``exchange`` does.
        """
        until_s = monotonic() + self._settings.load_bound_s
        while (left_s := until_s - monotonic()) > 0:
            if self._unloading is not None:
                await asyncio.wait({self._unloading}, timeout=left_s)
            elif self._loading is None and (runner := self.runner) is not None:
                self._check_alive(runner)
                return runner
            else:
                loading = self._loading or self._begin_load()
                await asyncio.wait({loading}, timeout=left_s)
                if loading.done():
                    return self._loaded_by(loading)
        raise EngineUnavailable(f"model {self.model_id} was not ready within {self._settings.load_bound_s:.0f} s")

    def resident(self) -> Resident:
        """The model as decisions about memory see it; what is set aside for it counts where it holds less."""
        held_bytes = self._held_bytes()
        if self._launch is not None:
            held_bytes = self._launch.counted_bytes
        elif held_bytes:
            held_bytes = max(held_bytes, self._model.memory_bytes or 0)
        return Resident(
            model_id=self.model_id,
            phase=self.phase,
            memory_bytes=held_bytes,
            leases=self.leases,
            pinned=self.pinned,
            last_used_s=self._last_used_s,
            idle_timeout_s=self._idle_timeout_s,
        )

    def status(self) -> ModelStatus:
        """The model as operators see it."""
        phase, held_bytes, needed_bytes, runner = self.phase, self._held_bytes(), self._needed_bytes(), self.runner
        is_loading, is_idle = phase is Phase.LOADING, phase is Phase.LOADED and self.leases == 0
        return ModelStatus(
            model_id=self.model_id,
            phase=phase,
            pinned=self.pinned,
            requests=self.leases,
            memory_bytes=held_bytes,
            expected_bytes=needed_bytes,
            pid=None if runner is None else runner.pid,
            progress=min(0.99, held_bytes / needed_bytes) if is_loading and needed_bytes else None,
            loading_s=monotonic() - self._loading_since_s if is_loading else None,
            idle_s=monotonic() - self._last_used_s if is_idle else None,
            idle_timeout_s=self._idle_timeout_s,
            failure=self.circuit.reason or None,
            retry_after_s=self.circuit.wait_s if phase is Phase.SUSPENDED else None,
            waiting=self._admission.waiting,
            circuit=self.circuit.state,
            prefix_bytes=0 if runner is None else runner.prefix_bytes,
        )

    def unload(
        self, reason: UnloadReason, *, evicted_for: str | None = None, by: str | None = None, deadline_s: float = 2.0
    ) -> asyncio.Task[None] | None:
        """Stop the runner and give its memory back, if it is loaded and unused; None where it is not.

        Nobody can begin to use it between the look and the stop, which do not wait for anything.
        """
        if self.phase is not Phase.LOADED or self.leases:
            return None
        return self._begin_unload(reason, evicted_for=evicted_for, by=by, deadline_s=deadline_s)

    async def aclose(self, deadline_s: float) -> None:
        """Stop for good. Requests that are still in flight get EngineUnavailable."""
        self._closed = True
        if (loading := self._loading) is not None:
            loading.cancel()
            await asyncio.wait({loading}, timeout=deadline_s + _ENDS_S)
        unloading = self._unloading or self._begin_unload(UnloadReason.SHUTTING_DOWN, deadline_s=deadline_s)
        if unloading is not None:
            await asyncio.wait({unloading}, timeout=deadline_s + _ENDS_S)

    def _begin_load(self) -> asyncio.Task[Runner]:
        if self._closed:
            raise EngineUnavailable("the server is shutting down")
        self.circuit.check()
        self._loading_since_s = monotonic()
        self._launch = Launch(self._model, settings=self._settings, room=self._room, start=self._start_runner)
        self._loading = asyncio.create_task(self._load(self._launch), name=f"load-{self.model_id}")
        self._loading.add_done_callback(self._load_ended)
        return self._loading

    async def _load(self, launch: Launch) -> Runner:
        if (crashed := self._runner) is not None:
            # Reaped before its successor needs the memory.
            self._runner = None
            await crashed.aclose(0)
        await self._teller.recall(self.model_id)
        try:
            self._runner = runner = await launch.run(self._needed_bytes() or 0, on_crash=self._crashed)
        except (ModelLoadError, InsufficientMemory) as error:
            self.circuit.load_failed(error)
            await self._teller.load_failed(self.model_id, error.message)
            raise
        self.circuit.loaded()
        await self._teller.loaded(self.model_id, runner)
        return runner

    def _load_ended(self, loading: asyncio.Task[Runner]) -> None:
        self._loading, self._launch = None, None
        if not loading.cancelled():
            loading.exception()  # every caller may be gone, and nobody else would ask for it
        self._used()

    def _loaded_by(self, loading: asyncio.Task[Runner]) -> Runner:
        if loading.cancelled():
            raise EngineUnavailable(f"model {self.model_id} was unloaded while it was being loaded")
        try:
            return loading.result()
        except DomainError as error:
            # A new exception for each of the callers: one that is raised many times grows its traceback.
            raise type(error)(error.message, retry_after_s=error.retry_after_s) from None

    def _begin_unload(
        self, reason: UnloadReason, *, evicted_for: str | None = None, by: str | None = None, deadline_s: float
    ) -> asyncio.Task[None] | None:
        runner, self._runner = self._runner, None
        if runner is None:
            return None
        self._ending = runner
        unload = self._unload(runner, reason, evicted_for=evicted_for, by=by, deadline_s=deadline_s)
        self._unloading = asyncio.create_task(unload, name=f"unload-{self.model_id}")
        self._unloading.add_done_callback(self._unload_ended)
        return self._unloading

    async def _unload(
        self, runner: Runner, reason: UnloadReason, *, evicted_for: str | None, by: str | None, deadline_s: float
    ) -> None:
        was_alive, size_bytes = runner.alive, runner.held_bytes
        await runner.aclose(deadline_s)
        if was_alive:
            await self._teller.unloaded(self.model_id, reason, memory_bytes=size_bytes, evicted_for=evicted_for, by=by)

    def _unload_ended(self, unloading: asyncio.Task[None]) -> None:
        self._unloading, self._ending = None, None
        if not unloading.cancelled():
            unloading.exception()
        self._room.changed()

    async def _crashed(self, reason: str, requests: int) -> None:
        self.circuit.crashed(reason)
        self._room.changed()
        await self._teller.crashed(self.model_id, reason, requests)
        if self.circuit.is_open:
            await self._teller.suspended(
                self.model_id, reason, failures=self.circuit.failures, suspended_s=self.circuit.wait_s
            )

    def _check_alive(self, runner: Runner) -> None:
        if (silent_s := runner.silent_s) > self._settings.suspect_s:
            raise ModelUnavailable(
                f"the runner of model {self.model_id} has given no sign of life for {silent_s:.0f} s",
                retry_after_s=max(1.0, self._settings.limits.stall_timeout_s - silent_s),
            )

    def _needed_bytes(self) -> int | None:
        return expected_bytes(self._model, self._teller.memory_of(self.model_id))

    def _held_bytes(self) -> int:
        if self._launch is not None:
            return self._launch.held_bytes
        runner = self.runner or self._ending
        return 0 if runner is None else runner.held_bytes

    @property
    def _idle_timeout_s(self) -> float | None:
        own_s = self._model.idle_timeout_s
        return (self._settings.idle_timeout_s if own_s is None else own_s) or None  # 0 is for ever

    def _used(self) -> None:
        self._last_used_s = monotonic()
        if self.leases == 0:
            self._room.changed()
