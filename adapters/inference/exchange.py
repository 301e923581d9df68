"""One request's conversation with a runner, and how long a runner may keep silent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from manent.adapters.inference.protocol import Progress, RunnerFrame, ServerFrame
from manent.domain.errors import EngineUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """How long a runner may take."""

    load_timeout_s: float = 300.0
    stall_timeout_s: float = 120.0


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

    def __init__(self, runner: Peer, request_id: int) -> None:
        self.id = request_id
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
        while True:
            try:
                async with asyncio.timeout_at(self._heard_at + stall_timeout_s):
                    frame = await self._frames.get()
            except TimeoutError:
                if loop.time() < self._heard_at + stall_timeout_s:
                    continue
                self._runner.kill(f"it gave no sign of life for {stall_timeout_s:g} s")
                # Its end comes through the queue; should even that fail, the next round ends this wait too.
                self._heard_at = loop.time()
                continue
            if isinstance(frame, EngineUnavailable):
                raise EngineUnavailable(frame.message)
            return frame

    def heard(self, frame: RunnerFrame | EngineUnavailable) -> None:
        """Take a frame in; progress only proves that the runner is alive."""
        self._heard_at = asyncio.get_running_loop().time()
        if not isinstance(frame, Progress):
            self._frames.put_nowait(frame)
