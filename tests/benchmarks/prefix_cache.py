"""What the prefix cache saves, and what it costs those who have nothing of it. Ratios from one run."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.prefix_settings import PrefixSettings, PrefixTags
from manent.adapters.inference.registry import RegisteredModel
from manent.domain.caching import CacheScope
from manent.domain.generation import GenerationResult, TextDelta
from manent.domain.messages import Message, Role
from tests.support.engines import CARD, MODEL, engine_of, request, running, said, supervisor_settings, user
from tests.support.sampling import parameters

_WORDS_OF_PROMPT = 215
"""As many numbered words as make about 1,500 tokens."""

_STREAMS = 4
_GAPS_MIN = 20
_SHORT_TOKENS = 48


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    first_token_s: float
    gaps_s: list[float]
    result: GenerationResult


def compare(model: Path, *, rounds: int) -> None:
    """Print first tokens cold, warm and after a restart; then gaps and throughput of those beside."""
    asyncio.run(_compare(model, rounds))


async def _compare(model: Path, rounds: int) -> None:
    cold_s, warm_s, disk_s, stalls, slower = [], [], [], [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            scope = CacheScope(tenant="t", conversation="s", durable=True)
            async with _engine(model, folder) as engine:
                opening = _opening(number)
                first = await _turn(engine, opening, scope)
                dialog = [*opening, said(Role.ASSISTANT, first.result.text), user("And what comes after it?")]
                cold = await _turn(engine, dialog, None)
                warm = await _turn(engine, dialog, scope)
                stalls.append(await _worst_gap_beside(engine, number))
                slower.append(await _slowdown(engine))
            async with _engine(model, folder) as engine:
                await _turn(engine, [user("Hello")], None)
                disk = await _turn(engine, dialog, scope)
            assert warm.result.provenance.cache.source == "memory"
            assert disk.result.provenance.cache.source == "disk"
            cold_s.append(cold.first_token_s)
            warm_s.append(warm.first_token_s)
            disk_s.append(disk.first_token_s)
    cold_m, warm_m, disk_m = (statistics.median(times) for times in (cold_s, warm_s, disk_s))
    tokens = cold.result.usage.prompt_tokens
    _say(
        f"second turn, {tokens} tokens, first token: cold {cold_m:.2f} s, warm {warm_m:.2f} s ({cold_m / warm_m:.1f} x)"
    )
    _say(f"after a restart, from disk: {disk_m:.2f} s ({cold_m / disk_m:.1f} x)")
    _say(f"worst gap of a stream beside, where 1,500 tokens are kept and written: {max(stalls):.1f} x its median gap")
    _say(f"{_STREAMS} short streams with the cache take {statistics.median(slower):.3f} x the time without")


async def _worst_gap_beside(engine: RunnerEngine, number: int) -> float:
    """Another stream's worst gap while a long answer ends, is kept and written; in units of its median gap."""
    opening = _opening(1000 + number)
    long = CacheScope(tenant="t", conversation=f"long-{number}", durable=True)
    await _turn(engine, opening, CacheScope(tenant="t", conversation="elsewhere"), max_tokens=1)
    story = [user("Tell me a long story about a dragon who lives in a castle by the sea.")]
    beside = asyncio.create_task(_turn(engine, story, None, max_tokens=60))
    await asyncio.sleep(1.0)
    await _turn(engine, opening, long, max_tokens=8)
    gaps = (await beside).gaps_s
    assert len(gaps) > _GAPS_MIN
    return max(gaps[2:]) / statistics.median(gaps[2:])


async def _slowdown(engine: RunnerEngine) -> float:
    """Short requests that are kept, and are never asked again, beside the same without a cache; interleaved."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for round_number in range(3):
        for cached in (True, False):
            scopes = [
                CacheScope(tenant=f"{round_number}-{n}", conversation="s", durable=True) if cached else None
                for n in range(_STREAMS)
            ]
            began_s = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for n, scope in enumerate(scopes):
                    prompt = [user(f"Tell me a story about the number {n}, please, and make it a long one.")]
                    group.create_task(_turn(engine, prompt, scope, max_tokens=_SHORT_TOKENS))
            times[cached].append(time.perf_counter() - began_s)
    return statistics.median(times[True]) / statistics.median(times[False])


async def _turn(
    engine: RunnerEngine, messages: list[Message], scope: CacheScope | None, *, max_tokens: int = 16
) -> _Turn:
    began_s = time.perf_counter()
    prompt = await engine.render(MODEL, messages)
    asked = dataclasses.replace(request(prompt, parameters(max_tokens=max_tokens)), cache=scope)
    moments: list[float] = []
    async for output in engine.generate(asked):
        if isinstance(output, TextDelta):
            moments.append(time.perf_counter())
        else:
            gaps = [after - before for before, after in pairwise(moments)]
            return _Turn(first_token_s=moments[0] - began_s, gaps_s=gaps, result=output)
    raise AssertionError("a generation ended without a result")


def _opening(number: int) -> list[Message]:
    words = " ".join(f"{number}-{word}," for word in range(_WORDS_OF_PROMPT))
    return [said(Role.SYSTEM, words), user("What comes first?")]


@asynccontextmanager
async def _engine(model: Path, folder: Path) -> AsyncGenerator[RunnerEngine, None]:
    prefix = PrefixSettings(
        folder=folder, memory_bytes=2 * 10**9, disk_bytes=2 * 10**9, tags=PrefixTags.of_file(folder / "keys" / "secret")
    )
    settings = dataclasses.replace(supervisor_settings(model.parent), prefix=prefix)
    async with engine_of([RegisteredModel(card=CARD, path=model)], settings) as engine:
        await engine.render(MODEL, [user("Hello")])
        await running(engine).ping()
        yield engine


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
