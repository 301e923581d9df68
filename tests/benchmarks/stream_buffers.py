"""What keeping a stream costs: eight streams of the starter model at once, without a buffer, in files and in Valkey.

Through the use case, recorded; rounds alternate. The figure is tokens per second beside those without a buffer.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import uvloop

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.adapters.projections.stream_files import FileStreams
from manent.adapters.projections.stream_redis import RedisStreams
from manent.adapters.store.memory import MemoryEventStore
from manent.app.settings import Settings
from manent.app.system import RandomIds, SystemClock
from manent.app.usecases import build_use_cases
from manent.domain.generation import RequestedParameters
from manent.domain.ports import InferenceEngine
from manent.domain.streams import NoStreamBuffer, StreamBuffer
from tests.support.conversation import message
from tests.support.engines import runner_engine
from tests.support.manent import ask
from tests.support.valkey import serving_valkey

STREAMS = 8
TARGETS = {"files": 3, "Valkey": 5}


def compare(folder: Path, *, tokens: int = 64, rounds: int = 5) -> None:
    """Measure and print."""
    sys.stdout.write(f"Keeping {STREAMS} streams of {tokens} tokens, medians of {rounds} rounds:\n")
    with ExitStack() as stack:
        valkey = stack.enter_context(serving_valkey())
        kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="manent-bench-")))
        found = uvloop.run(_measure(folder, kept, valkey.url, tokens, rounds))
    bare = found.pop("no buffer")
    sys.stdout.write(f"  no buffer  {median(bare):6.1f} tokens/s\n")
    for name, rates in found.items():
        share = median(rate / beside for rate, beside in zip(rates, bare, strict=True))
        cost = f"costs {1 - share:.1%} (target: at most {TARGETS[name]} %)"
        sys.stdout.write(f"  {name:9}  {median(rates):6.1f} tokens/s   {cost}\n")


async def _measure(folder: Path, kept: Path, url: str, tokens: int, rounds: int) -> dict[str, list[float]]:
    shared = RedisStreams(RedisLink(url, RedisLimits()), CircuitBreaker(period_s=5), log_id="bench")
    buffers: dict[str, StreamBuffer] = {"no buffer": NoStreamBuffer(), "files": FileStreams(kept), "Valkey": shared}
    found: dict[str, list[float]] = {name: [] for name in buffers}
    async with runner_engine(folder) as engine:
        for number in range(-1, rounds):
            for name, buffer in buffers.items():
                rate = await _rate(engine, buffer, tokens)
                if number >= 0:  # the round before the first warms all up
                    found[name].append(rate)
    await shared.aclose()
    return found


async def _rate(engine: InferenceEngine, buffer: StreamBuffer, tokens: int) -> float:
    """Tokens per second of eight streams at once."""
    clock, ids = SystemClock(), RandomIds()
    store = MemoryEventStore(clock=clock, ids=ids)
    chat = build_use_cases(Settings(), store=store, engine=engine, clock=clock, ids=ids, streams=buffer).complete_chat
    parameters = RequestedParameters(max_tokens=tokens, temperature=0.0)
    began = time.perf_counter()
    running = [
        chat.start(
            ask(message("user", f"Tell story {n} of the sea.", ids.new("m")), store_content=True, parameters=parameters)
        )
        for n in range(STREAMS)
    ]
    generated = await asyncio.gather(*(one.generated() for one in running))
    return sum(one.usage.completion_tokens for one in generated) / (time.perf_counter() - began)
