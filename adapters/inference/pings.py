"""Asking runners whether the thread that evaluates lives: also idle ones, before a request finds out."""

from __future__ import annotations

import asyncio
import logging

from manent.adapters.inference.connection import Runner
from manent.domain.errors import EngineUnavailable

_logger = logging.getLogger(__name__)


class Pings:
    """At most one question to each model's runner at a time. One that is not answered in time ends the runner."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._asked_s: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The questions that are not answered yet."""
        return set(self._asking.values())

    def ask_if_due(self, model_id: str, runner: Runner | None, *, now_s: float) -> None:
        """Ask the runner, if there is one and it was not asked for a while."""
        if runner is None:
            self._asked_s.pop(model_id, None)
            return
        due_s = self._asked_s.setdefault(model_id, now_s) + self._interval_s
        if now_s < due_s or model_id in self._asking:
            return
        self._asked_s[model_id] = now_s
        asking = asyncio.create_task(_ask(runner), name=f"ping-{model_id}")
        self._asking[model_id] = asking
        asking.add_done_callback(lambda _: self._asking.pop(model_id, None))


async def _ask(runner: Runner) -> None:
    try:
        await runner.ping()
    except EngineUnavailable as error:
        _logger.debug("a ping was not answered: %s", error.message)
