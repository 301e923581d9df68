"""What keeping a stream costs: eight streams of the starter model at once, without a buffer, in files and in Valkey.

Through the use case, recorded; rounds alternate, each in another order. The figures are tokens per second beside those
without a buffer, and the CPU time that this process, which is the server without HTTP, spends on a token: that one can
be measured on a machine that does other things as well.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
from manent.domain.generation import RequestedParameters, TextDelta
from manent.domain.ports import InferenceEngine
from manent.domain.streams import NoStreamBuffer, StreamBuffer, StreamKey
from tests.support.conversation import message
from tests.support.engines import runner_engine
from tests.support.manent import ask
from tests.support.valkey import serving_valkey

STREAMS = 8
APPENDS = 250
TARGETS = {"files": 3, "Valkey": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Tokens per second, and microseconds of CPU time for each in the server's process."""

    rate: float
    cpu_us: float


def compare(folder: Path, *, tokens: int = 64, rounds: int = 5) -> None:
    """Measure and print."""
    sys.stdout.write(f"Keeping {STREAMS} streams of {tokens} tokens, medians of {rounds} rounds:\n")
    with ExitStack() as stack:
        valkey = stack.enter_context(serving_valkey())
        kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="manent-bench-")))
        alone_us = uvloop.run(_alone(kept, valkey.url))
        found = uvloop.run(_measure(folder, kept, valkey.url, tokens, rounds))
    sys.stdout.write("".join(f"  {name:9}  {us:.0f} us of CPU time a delta, alone\n" for name, us in alone_us.items()))
    bare = found.pop("no buffer")
    sys.stdout.write(f"  no buffer  {_medians(bare)}\n")
    for name, rounds_of_it in found.items():
        share = median(one.rate / beside.rate for one, beside in zip(rounds_of_it, bare, strict=True))
        cpu_us = median(one.cpu_us - beside.cpu_us for one, beside in zip(rounds_of_it, bare, strict=True))
        cost = f"costs {1 - share:.1%} (target: at most {TARGETS[name]} %), {cpu_us:+.0f} us"
        sys.stdout.write(f"  {name:9}  {_medians(rounds_of_it)}   {cost}\n")


def _medians(rounds: Sequence[Round]) -> str:
    return f"{median(one.rate for one in rounds):6.1f} tokens/s, {median(one.cpu_us for one in rounds):4.0f} us a token"


def _buffers(kept: Path, url: str) -> tuple[dict[str, StreamBuffer], RedisStreams]:
    shared = RedisStreams(RedisLink(url, RedisLimits()), CircuitBreaker(period_s=5), log_id="bench")
    return {"no buffer": NoStreamBuffer(), "files": FileStreams(kept), "Valkey": shared}, shared


async def _alone(kept: Path, url: str) -> dict[str, float]:
    """Microseconds of CPU time for each delta, without a model: streams in step, the median of five rounds."""
    buffers, shared = _buffers(kept, url)
    spent_us: dict[str, list[float]] = {name: [] for name in buffers}

    async def write(buffer: StreamBuffer, key: StreamKey) -> None:
        for number in range(APPENDS):
            await buffer.append(key, number, (TextDelta(text=" sea", token_ids=(number,)),))
            await asyncio.sleep(0)
        await buffer.end(key)

    for turn in range(5):
        for name, buffer in buffers.items():
            spent_s = time.process_time()
            keys = [StreamKey(tenant="t", completion_id=f"{turn}-{number}") for number in range(STREAMS)]
            await asyncio.gather(*(write(buffer, key) for key in keys))
            spent_us[name].append((time.process_time() - spent_s) / (APPENDS * STREAMS) * 1_000_000)
    await shared.aclose()
    loop_us = median(spent_us.pop("no buffer"))
    return {name: median(spent) - loop_us for name, spent in spent_us.items()}


async def _measure(folder: Path, kept: Path, url: str, tokens: int, rounds: int) -> dict[str, list[Round]]:
    buffers, shared = _buffers(kept, url)
    found: dict[str, list[Round]] = {name: [] for name in buffers}
    async with runner_engine(folder) as engine:
        for number in range(-1, rounds):
            names = [*buffers][number % len(buffers) :] + [*buffers][: number % len(buffers)]
            for name in names:
                one = await _round(engine, buffers[name], tokens)
                if number >= 0:  # the round before the first warms all up
                    found[name].append(one)
    await shared.aclose()
    return found


async def _round(engine: InferenceEngine, buffer: StreamBuffer, tokens: int) -> Round:
    """Eight streams at once."""
    clock, ids = SystemClock(), RandomIds()
    store = MemoryEventStore(clock=clock, ids=ids)
    chat = build_use_cases(Settings(), store=store, engine=engine, clock=clock, ids=ids, streams=buffer).complete_chat
    parameters = RequestedParameters(max_tokens=tokens, temperature=0.0)
    began, spent_s = time.perf_counter(), time.process_time()
    running = [
        chat.start(
            ask(message("user", f"Tell story {n} of the sea.", ids.new("m")), store_content=True, parameters=parameters)
        )
        for n in range(STREAMS)
    ]
    generated = await asyncio.gather(*(one.generated() for one in running))
    made = sum(one.usage.completion_tokens for one in generated)
    cpu_us = (time.process_time() - spent_s) / made * 1_000_000
    return Round(rate=made / (time.perf_counter() - began), cpu_us=cpu_us)
