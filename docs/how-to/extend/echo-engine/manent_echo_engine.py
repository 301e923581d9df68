"""An engine for Manent that says again what it was told last.

It stands on Manent's scripted engine, which keeps the whole port: queues, sampling of choices, log probabilities,
embeddings. An engine of another kind implements ``manent.domain.ports.InferenceEngine`` itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.extensions import EngineContext
from manent.domain.generation import GenerationRequest, ModelCard
from manent.domain.ports import InferenceEngine

ECHO = ModelCard(model_id="echo", context_length=8192, created_at_s=0, aliases=("default",))


@asynccontextmanager
async def echo_engine(_context: EngineContext) -> AsyncGenerator[InferenceEngine, None]:
    """The engine, for as long as the server runs."""
    engine = ScriptedEngine(cards=(ECHO,))

    def script(_request: GenerationRequest) -> Script:
        words = engine.rendered[-1][-1].text.split(" ")
        return Script(pieces=tuple(word if number == 0 else f" {word}" for number, word in enumerate(words)))

    engine.script = script
    yield engine
