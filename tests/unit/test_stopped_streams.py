"""A completion that is stopped while a delta is on its way to the buffer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.store.memory import MemoryEventStore
from manent.app.settings import Settings
from manent.app.usecases import build_use_cases
from manent.domain.errors import CompletionCancelledError
from manent.domain.events import CompletionCancelled
from manent.domain.generation import TextDelta
from manent.domain.streams import NoStreamBuffer, StreamKey
from tests.support.conversation import user
from tests.support.fakes import CountingIds, FakeClock
from tests.support.manent import ask


class SlowBuffer(NoStreamBuffer):
    """Takes the second delta, and does not come back."""

    def __init__(self) -> None:
        self.taken = asyncio.Event()

    async def append(self, stream: StreamKey, start: int, deltas: Sequence[TextDelta]) -> None:
        """See ``StreamBuffer.append``."""
        if start == 1:
            self.taken.set()
            await asyncio.Event().wait()


async def test_what_the_buffer_may_have_is_said_and_recorded() -> None:
    """A reader elsewhere may have that delta already: so the readers here and the log have it, in text and in sizes."""
    buffer, clock, ids = SlowBuffer(), FakeClock(), CountingIds()
    store = MemoryEventStore(clock=clock, ids=ids)
    engine = ScriptedEngine(Script(pieces=("a", "b", "c")))
    manent = build_use_cases(Settings(), store=store, engine=engine, clock=clock, ids=ids, streams=buffer)
    running = manent.complete_chat.start(ask(user("hi"), session_id="s", stream=True))
    await buffer.taken.wait()
    running.cancel("client_disconnected")
    with pytest.raises(CompletionCancelledError):
        await running.generated()
    event = (await store.read_stream("acme", "session-s"))[-1].event
    assert isinstance(event, CompletionCancelled)
    assert (event.text, running.text) == ("ab", "ab")
    assert event.piece_sizes is not None
    assert event.piece_sizes.deltas is not None
    assert event.piece_sizes.deltas.texts == (1, 1)
