"""What a turn costs beside the model, from the tenth turn of a session to the ten-thousandth, on SQLite.

Through the use case, with the scripted engine, whose own time is taken off. The window is full after a few turns, so
that the model sees equally much from then on; each turn sends its new message only. Figures are medians over turns.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import uvloop

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.settings import Settings
from manent.app.system import RandomIds, SystemClock
from manent.app.usecases import build_use_cases
from manent.domain.generation import GenerationRequest, GenerationResult, RenderedPrompt, TextDelta, Truncation
from manent.domain.messages import Message
from manent.domain.output_shape import OutputShape
from manent.domain.reconcile import SessionMode
from tests.support.conversation import message
from tests.support.manent import ask

TURNS = 10_000
AROUND = 200
WORDS = "some words that a person might say to a machine " * 3
WINDOW_TOKENS = 512


class TimedEngine(ScriptedEngine):
    """An engine that knows how long it was asked."""

    own_s = 0.0

    async def render(
        self, model_id: str, messages: Sequence[Message], *, shape: OutputShape | None = None
    ) -> RenderedPrompt:
        """See ``ScriptedEngine.render``."""
        began = time.perf_counter()
        prompt = await super().render(model_id, messages, shape=shape)
        self.own_s += time.perf_counter() - began
        return prompt

    async def count_tokens(self, model_id: str, messages: Sequence[Message]) -> tuple[int, ...]:
        """See ``ScriptedEngine.count_tokens``."""
        began = time.perf_counter()
        counts = await super().count_tokens(model_id, messages)
        self.own_s += time.perf_counter() - began
        return counts

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TextDelta | GenerationResult, None]:
        """See ``ScriptedEngine.generate``."""
        began = time.perf_counter()
        async for output in super().generate(request):
            yield output
        self.own_s += time.perf_counter() - began


def compare(turns: int = TURNS) -> None:
    """Measure and print."""
    overheads_s = uvloop.run(_converse(turns))
    sys.stdout.write(f"Overhead of a turn beside the model, SQLite, medians of {AROUND} turns:\n")
    first_s = median(overheads_s[10 : 10 + AROUND])
    place = 10
    while place <= turns:
        begin = min(place, turns - AROUND)
        here_s = median(overheads_s[begin : begin + AROUND])
        sys.stdout.write(f"  from turn {begin:6,}: {1000 * here_s:6.2f} ms   {here_s / first_s - 1:+.0%}\n")
        place *= 10
    sys.stdout.write("  (target: within 20 % from turn 10 to turn 10,000)\n")


async def _converse(turns: int) -> list[float]:
    engine = TimedEngine(
        Script(pieces=("A", " short", " answer")), cards=(replace(SCRIPTED_CARD, context_length=WINDOW_TOKENS),)
    )
    with tempfile.TemporaryDirectory(prefix="manent-bench-") as folder:
        path, ids, clock = Path(folder) / "manent.db", RandomIds(), SystemClock()
        upgrade(path)
        await ensure_log(path, ids)
        store = SQLiteEventStore(path, clock=clock, ids=ids)
        chat = build_use_cases(Settings(), store=store, engine=engine, clock=clock, ids=ids).complete_chat
        overheads_s = []
        try:
            for _ in range(turns):
                command = ask(
                    message("user", WORDS, ids.new("msg_")),
                    session_id="s",
                    session_mode=SessionMode.APPEND,
                    truncation=Truncation.AUTO,
                )
                engine.own_s, began = 0.0, time.perf_counter()
                await chat.start(command).generated()
                overheads_s.append(time.perf_counter() - began - engine.own_s)
                await asyncio.sleep(0)
        finally:
            await store.aclose()
    return overheads_s


if __name__ == "__main__":
    compare(int(sys.argv[1]) if len(sys.argv) > 1 else TURNS)
