"""Several servers in this process over one log, one buffer of streams and one engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.store.memory import MemoryEventStore
from manent.app.system import RandomIds, SystemClock
from manent.domain.messages import ToolCall
from manent.domain.streams import StreamBuffer
from tests.support.http import Running, running_server


class World:
    """A log and a buffer that servers share, and the engine of the server that generates."""

    def __init__(self, pieces: Sequence[str | ToolCall], buffer: StreamBuffer, **hooks: Any) -> None:
        self.store = MemoryEventStore(clock=SystemClock(), ids=RandomIds())
        self.engine = ScriptedEngine(Script(pieces=tuple(pieces), **hooks))
        self.buffer = buffer

    @asynccontextmanager
    async def server(self, **options: Any) -> AsyncGenerator[Running]:
        """One of the servers."""
        async with running_server(store=self.store, engine=self.engine, streams=self.buffer, **options) as running:
            yield running
