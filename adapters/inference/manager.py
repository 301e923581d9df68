"""All models together: one memory budget, who is unloaded for whom, idle models, and runners that hang."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic

from manent.adapters.inference.connection import Runner
from manent.adapters.inference.pings import Pings
from manent.adapters.inference.registry import Registry
from manent.adapters.inference.supervision import NoRoom, StartRunner, SupervisorSettings
from manent.adapters.inference.supervisor import RunnerSupervisor
from manent.adapters.inference.telling import Teller
from manent.domain.admission import Priority, QueuePlace
from manent.domain.errors import (
    CompletionCancelledError,
    DomainError,
    EngineUnavailable,
    InsufficientMemory,
    ModelInUse,
    ModelLoadError,
    ModelUnavailable,
)
from manent.domain.model_status import MemoryReport, ModelStatus
from manent.domain.residency import (
    Admit,
    Phase,
    Refuse,
    Resident,
    UnloadReason,
    decide_idle,
    decide_residency,
    decide_trim,
    held_bytes,
)
from manent.domain.waiting import Gone, Waited, end_with_gone

_LOOK_AGAIN_S = 0.25
_UNLOADS_S = 30.0

_logger = logging.getLogger(__name__)


class ModelManager:
    """Decides which models are in memory. Belongs to one event loop; ``start`` begins a watch, ``aclose`` ends all."""

    def __init__(
        self,
        registry: Registry,
        *,
        settings: SupervisorSettings,
        teller: Teller,
        start_runner: StartRunner = Runner.start,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._teller = teller
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pings = Pings(settings.ping_interval_s)
        self._auto_loading: list[str] = []
        self._supervisors: Mapping[str, RunnerSupervisor] = {
            model.card.model_id: RunnerSupervisor(
                model, settings=settings, teller=teller, room=self, start_runner=start_runner
            )
            for model in registry.models
        }

    def start(self) -> None:
        """Begin to look after idle models and hanging runners, and to load what is to be loaded at the start."""
        self._auto_loading = [model.card.model_id for model in self._registry.models if model.auto_load]
        self._run(self._watch(), "watch-models")
        self._run(self._auto_load(), "auto-load")

    def supervisor(self, name: str) -> RunnerSupervisor:
        """What looks after the runner of a model, by its id or an alias."""
        return self._supervisors[self._registry.resolve(name).model_id]

    @asynccontextmanager
    async def place(
        self,
        name: str,
        *,
        priority: Priority = Priority.INTERACTIVE,
        alone: bool = False,
        gone: Gone | None = None,
    ) -> AsyncGenerator[QueuePlace, None]:
        """A place at a model that is loaded: the one that is asked for or, where that fails, the next of its fallbacks.

        Raises:
            CompletionCancelledError: ``gone`` returned before there was a place, or before the model was loaded.
            DomainError: what kept the one that is asked for from being used; the fallbacks could not be used either.
        """
        refusal: DomainError | None = None
        for model_id in self._registry.chain(name):
            async with AsyncExitStack() as stack:
                supervisor = self._supervisors[model_id]
                try:
                    place = await stack.enter_async_context(supervisor.place(priority, alone=alone, gone=gone))
                    await _load_unless(gone, supervisor)
                except (ModelLoadError, InsufficientMemory, ModelUnavailable, EngineUnavailable) as error:
                    refusal = refusal or error
                    continue
                yield place
                return
        raise refusal or EngineUnavailable(f"no model answers for {name!r:.200}")

    async def recover(self, model_id: str) -> None:
        """After the system killed a model's runner: unload what nobody uses, and let a moment go by."""
        await self.free_unused(model_id)
        await asyncio.sleep(self._settings.retry_backoff_s)

    # What operators ask for.

    async def load(self, name: str) -> ModelStatus:
        """Load a model now; a failure a moment ago does not keep it from being tried."""
        supervisor = self.supervisor(name)
        supervisor.circuit.forgive()
        await supervisor.load()
        return supervisor.status()

    async def unload(self, name: str, *, by: str) -> bool:
        """Unload a model; False where it was not in memory.

        Raises:
            ModelInUse: requests use it or wait for it, or it is being loaded.
        """
        supervisor = self.supervisor(name)
        unloading = supervisor.unloading or supervisor.unload(UnloadReason.REQUESTED, by=by)
        if unloading is not None:
            await asyncio.wait({unloading}, timeout=_UNLOADS_S)
            return True
        if supervisor.phase is Phase.LOADING:
            raise ModelInUse(f"model {supervisor.model_id} is being loaded; unload it when that has ended")
        if supervisor.leases:
            raise ModelInUse(
                f"model {supervisor.model_id} is used by requests ({supervisor.leases}); unload it when they have ended"
            )
        return False

    async def pin(self, name: str, *, pinned: bool, by: str) -> ModelStatus:
        """Say whether a model may be unloaded to make room or for being idle; it holds until the next start."""
        supervisor = self.supervisor(name)
        if supervisor.pinned != pinned:
            supervisor.pinned = pinned
            self.changed()
            await self._teller.pin_changed(supervisor.model_id, pinned=pinned, by=by)
        return supervisor.status()

    def statuses(self) -> tuple[ModelStatus, ...]:
        """All models, in the order of the registry."""
        return tuple(supervisor.status() for supervisor in self._supervisors.values())

    def memory(self) -> MemoryReport:
        """The budget and what is held of it, measured now."""
        return MemoryReport(budget=self._settings.budget(), models=self.statuses())

    def problems(self) -> dict[str, str]:
        """What keeps models from answering, by name: runners that hang, failures, loads that the start waits for."""
        problems = {
            f"model {supervisor.model_id}": f"its runner has given no sign of life for {runner.silent_s:.0f} s"
            for supervisor in self._supervisors.values()
            if (runner := supervisor.runner) is not None and runner.silent_s > self._settings.suspect_s
        }
        if all(supervisor.phase is Phase.SUSPENDED for supervisor in self._supervisors.values()):
            problems["models"] = "every model failed, and none is tried for a while; `manent models ps` says why"
        if self._auto_loading:
            problems["models"] = f"still to be loaded: {', '.join(self._auto_loading)}"
        return problems

    async def aclose(self, deadline_s: float) -> None:
        """Stop all runners, at the same time; what they still work on fails with EngineUnavailable."""
        watching = self._tasks | self._pings.tasks
        for task in watching:
            task.cancel()
        if watching:
            await asyncio.wait(watching, timeout=deadline_s)
        async with asyncio.TaskGroup() as closing:
            for supervisor in self._supervisors.values():
                closing.create_task(supervisor.aclose(deadline_s))

    # Room: what supervisors ask for.

    async def make_for(self, model_id: str, needed_bytes: int, reserve: Callable[[int], None]) -> None:
        """See ``Room.make_for``. Between a decision and what follows from it nothing waits, so none is outdated."""
        until_s = monotonic() + self._settings.memory_wait_s
        while True:
            decision = decide_residency(
                self._residents(), model_id=model_id, needed_bytes=needed_bytes, budget=self._settings.budget()
            )
            if isinstance(decision, Admit):
                reserve(needed_bytes)
                self._unload(decision.evict, UnloadReason.EVICTED, evicted_for=model_id)
                await self._unloads_end()
                return
            if isinstance(decision, Refuse):
                raise NoRoom(decision.reason)
            if monotonic() >= until_s:
                raise NoRoom(f"{decision.reason}; nothing of it came free in {self._settings.memory_wait_s:g} s")
            await self._wait_for_change()

    async def free_unused(self, model_id: str) -> None:
        """See ``Room.free_unused``."""
        unused = [found.model_id for found in self._residents() if found.evictable and found.model_id != model_id]
        self._unload(unused, UnloadReason.OUT_OF_MEMORY, evicted_for=model_id)
        await self._unloads_end()

    async def exceeded_by(self, model_id: str) -> int:
        """See ``Room.exceeded_by``."""
        budget = self._settings.budget()
        others_first = decide_trim(self._residents(), budget=budget)
        self._unload(others_first, UnloadReason.EVICTED, evicted_for=model_id)
        await self._unloads_end()
        return held_bytes(self._residents()) - budget.limit_bytes

    def changed(self) -> None:
        """See ``Room.changed``."""
        self._changed.set()

    def _residents(self) -> list[Resident]:
        return [supervisor.resident() for supervisor in self._supervisors.values()]

    def _unload(self, model_ids: Iterable[str], reason: UnloadReason, *, evicted_for: str | None = None) -> None:
        for model_id in model_ids:
            self._supervisors[model_id].unload(reason, evicted_for=evicted_for)

    async def _unloads_end(self) -> None:
        unloading = {found.unloading for found in self._supervisors.values() if found.unloading is not None}
        if unloading:
            await asyncio.wait(unloading, timeout=_UNLOADS_S)

    async def _wait_for_change(self) -> None:
        """Return soon after something changed, and after a while anyway: what processes hold changes unannounced."""
        self._changed.clear()
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await self._changed.wait()
        except TimeoutError:
            return

    # The watch.

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._settings.watch_interval_s)
            now_s = monotonic()
            self._unload(decide_idle(self._residents(), now_s=now_s), UnloadReason.IDLE)
            self._unload(decide_trim(self._residents(), budget=self._settings.budget()), UnloadReason.OVER_BUDGET)
            for supervisor in self._supervisors.values():
                self._pings.ask_if_due(supervisor.model_id, supervisor.runner, now_s=now_s)

    async def _auto_load(self) -> None:
        """One after the other; what fails is recorded by its supervisor, and stops nothing."""
        while self._auto_loading:
            try:
                await self._supervisors[self._auto_loading[0]].load()
            except DomainError as error:
                _logger.warning("model %s was not loaded at the start: %s", self._auto_loading[0], error.message)
            finally:
                del self._auto_loading[0]

    def _run(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("%s ended in a defect", task.get_name(), exc_info=error)


async def _load_unless(gone: Gone | None, supervisor: RunnerSupervisor) -> None:
    """Wait for the model, but no longer than somebody wants it; the load itself goes on for others."""
    loading = asyncio.ensure_future(supervisor.load())
    if await end_with_gone(loading, gone) is not Waited.DONE:
        raise CompletionCancelledError(f"nobody waits any more for model {supervisor.model_id}")
    loading.result()
