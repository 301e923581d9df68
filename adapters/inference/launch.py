"""Loading a model: room is made, a runner is started and measured, and where memory ran out it is tried once more."""

from __future__ import annotations

import asyncio

from manent.adapters.inference.connection import OnCrash, Runner
from manent.adapters.inference.exchange import LoadOutOfMemory
from manent.adapters.inference.memory import process_bytes
from manent.adapters.inference.process import RunnerCommand
from manent.adapters.inference.registry import RegisteredModel
from manent.adapters.inference.supervision import NoRoom, Room, StartRunner, SupervisorSettings
from manent.domain.embedding import ModelType
from manent.domain.errors import InsufficientMemory
from manent.domain.residency import gigabytes

ATTEMPTS = 2


class Launch:
    """One load, while it is under way."""

    def __init__(self, model: RegisteredModel, *, settings: SupervisorSettings, room: Room, start: StartRunner) -> None:
        self._command = RunnerCommand(
            type=model.card.type,
            model_folder=model.path,
            digest_folder=settings.digest_folder,
            adapter=model.adapter,
            draft=model.draft,
            draft_tokens=model.draft_tokens,
            shards=model.shards,
            hosts=model.hosts,
            prefix=None
            if settings.prefix is None or model.card.type is not ModelType.LLM
            else settings.prefix.options(model.card.model_id),
        )
        self._model_id = model.card.model_id
        self._settings = settings
        self._room = room
        self._start = start
        self._reserved_bytes = 0
        self._pid: int | None = None
        self._runner: Runner | None = None

    @property
    def held_bytes(self) -> int:
        """What its process holds by now."""
        if self._runner is not None:
            return self._runner.held_bytes
        return 0 if self._pid is None else process_bytes(self._pid)

    @property
    def counted_bytes(self) -> int:
        """What is set aside for it or, where that is more, what its process holds."""
        return max(self._reserved_bytes, self.held_bytes)

    async def run(self, needed_bytes: int, *, on_crash: OnCrash) -> Runner:
        """The runner, once its model is ready and known to fit.

        Raises:
            InsufficientMemory: there is no room for it, or memory ran out twice.
            ModelLoadError: it cannot be loaded.
        """
        reason, ran_out = "", False
        for attempt in range(ATTEMPTS):
            if attempt:
                if ran_out:
                    await self._room.free_unused(self._model_id)
                await asyncio.sleep(self._settings.retry_backoff_s)
            await self._make_room(needed_bytes, reason)
            try:
                runner = await self._start(
                    self._command, limits=self._settings.limits, on_crash=on_crash, on_process=self._process_started
                )
            except LoadOutOfMemory as error:
                reason, ran_out = error.message, True
            else:
                self._runner = runner
                held_bytes, excess_bytes = await self._measured(runner)
                if excess_bytes <= 0:
                    return runner
                needed_bytes = max(needed_bytes, held_bytes)
                reason = (
                    f"model {self._model_id} holds {gigabytes(held_bytes)} once it is loaded, which brings all models "
                    f"{gigabytes(excess_bytes)} over what they may hold"
                )
            self._reserved_bytes, self._pid, self._runner = 0, None, None
        raise InsufficientMemory(
            f"{reason}; it was tried twice, and unused models were unloaded before the second time"
        )

    async def _make_room(self, needed_bytes: int, reason: str) -> None:
        try:
            await self._room.make_for(self._model_id, needed_bytes, self._reserve)
        except NoRoom as error:
            if reason:
                raise InsufficientMemory(f"{reason}; {error.message}") from None
            raise NoRoom(f"{error.message} (what it needs can be said as memory_gb in models.toml)") from None

    async def _measured(self, runner: Runner) -> tuple[int, int]:
        """What the runner holds, and how much too much that is; one that is too much, or unwanted, is stopped."""
        excess_bytes = 1
        try:
            held_bytes = runner.held_bytes
            excess_bytes = await self._room.exceeded_by(self._model_id)
        finally:
            if excess_bytes > 0:
                await runner.aclose(0)
        return held_bytes, excess_bytes

    def _reserve(self, size_bytes: int) -> None:
        self._reserved_bytes = size_bytes

    def _process_started(self, pid: int) -> None:
        self._pid = pid
