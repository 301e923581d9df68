"""One request's conversation with a runner, and how long a runner may keep silent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from manent.adapters.inference.protocol import Progress, RunnerFrame, ServerFrame
from manent.domain.errors import EngineUnavailable, ModelLoadError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """How long a runner may take."""

    load_timeout_s: float = 300.0
    stall_timeout_s: float = 120.0


class RunnerKilled(EngineUnavailable):
    """Something outside killed the runner, most likely the system, for want of memory."""


class LoadOutOfMemory(ModelLoadError):
    """There was not enough memory to load the model."""


class Peer(Protocol):
    """The runner, as far as a request needs it."""

    limits: RunnerLimits

    async def send(self, frame: ServerFrame) -> None:
        """Write a frame; EngineUnavailable if the runner is gone or takes none."""
        ...

    def kill(self, reason: str) -> None:
        """End the runner; its requests hear of it."""
        ...


class Exchange:
    """One request's frames.

    The queue is bounded by what was asked for: at most one delta per token of ``max_tokens``, and an answer.
    """

    def __init__(self, runner: Peer, request_id: int, *, is_request: bool = True) -> None:
        self.id = request_id
        self.is_request = is_request
        self._runner = runner
        self._frames: asyncio.Queue[RunnerFrame | EngineUnavailable] = asyncio.Queue()
        self._heard_at = asyncio.get_running_loop().time()

    async def send(self, frame: ServerFrame) -> None:
        """Send a request; EngineUnavailable if the runner is gone, or does not take it within the stall timeout."""
        self._heard_at = asyncio.get_running_loop().time()
        await self._runner.send(frame)

    async def receive(self) -> RunnerFrame:
        """The next frame.

        Raises:
            EngineUnavailable: the runner ended, or gave no sign of life for this request and was killed for it.
        """
        stall_timeout_s = self._runner.limits.stall_timeout_s
        loop = asyncio.get_running_loop()
        killed = False
        while True:
            try:
                async with asyncio.timeout_at(self._heard_at + stall_timeout_s):
                    frame = await self._frames.get()
            except TimeoutError:
                if loop.time() < self._heard_at + stall_timeout_s:
                    continue
                if killed:
                    raise EngineUnavailable(
                        "the model's runner hung, and did not even end when it was killed"
                    ) from None
                self._runner.kill(f"it gave no sign of life for {stall_timeout_s:g} s")
                # Its end comes through the queue; should even that fail, the next round ends this wait.
                self._heard_at, killed = loop.time(), True
                continue
            if isinstance(frame, EngineUnavailable):
                # A new one for each reader: one that is raised many times grows its traceback.
                raise type(frame)(frame.message)
            return frame

    def lives(self) -> None:
        """Take note that the runner is alive."""
        self._heard_at = asyncio.get_running_loop().time()

    def heard(self, frame: RunnerFrame | EngineUnavailable) -> None:
        """Take a frame in; progress only proves that the runner is alive."""
        self.lives()
        if not isinstance(frame, Progress):
            self._frames.put_nowait(frame)
