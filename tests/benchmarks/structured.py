"""What a format and log probabilities cost a token: beside free output, in turns, alone and with eight streams.

Two figures: time per token behind the first, which needs a machine that does nothing else; and the runner's own
processor time, prompts included, which says something on a busy one as well.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

import psutil

from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.registry import RegisteredModel
from manent.domain.generation import GenerationResult, SamplingParameters
from manent.domain.output_shape import FormatKind, OutputFormat, OutputShape
from tests.support.engines import CARD, MODEL, collect, engine_of, request, running, supervisor_settings, user
from tests.support.sampling import parameters

STREAMS = (1, 8)
STEPS = '"steps":{"type":"array","items":{"type":"string"},"minItems":50}'
TEXTS = f'{{"type":"object","properties":{{{STEPS}}},"required":["steps"]}}'
SCHEMA = OutputShape(format=OutputFormat(kind=FormatKind.JSON_SCHEMA, definition=TEXTS))


def compare(model: Path, *, tokens: int, rounds: int) -> None:
    """Print how much longer a token takes than in free output; the targets are 10 % and 5 %."""
    asyncio.run(_compare(model, tokens, rounds))


async def _compare(model: Path, tokens: int, rounds: int) -> None:
    free = parameters(max_tokens=tokens)
    sides = {
        "with a schema": parameters(max_tokens=tokens, shape=SCHEMA),
        "with log probabilities": parameters(max_tokens=tokens, logprobs=True, top_logprobs=5),
    }
    with tempfile.TemporaryDirectory() as folder:
        registered = RegisteredModel(card=CARD, path=model)
        async with engine_of([registered], supervisor_settings(Path(folder))) as engine:
            await _cost(engine, sides["with a schema"], 1)
            for streams in STREAMS:
                for name, asked in sides.items():
                    ratios = [await _ratio(engine, free, asked, streams) for _ in range(rounds)]
                    time, processor = (statistics.median(which) for which in zip(*ratios, strict=True))
                    line = f"  {streams} streams {name}: a token takes {time:.1%} of one in free output"
                    sys.stdout.write(f"{line}, and {processor:.1%} of its processor time\n")
                    sys.stdout.flush()


async def _ratio(
    engine: RunnerEngine, free: SamplingParameters, asked: SamplingParameters, streams: int
) -> tuple[float, float]:
    """Time and processor time of a token beside free output, which comes before and after: drift is on both sides."""
    before, here = await _cost(engine, free, streams), await _cost(engine, asked, streams)
    after = await _cost(engine, free, streams)
    time, processor = (2 * this / (one + other) for this, one, other in zip(here, before, after, strict=True))
    return time, processor


async def _cost(engine: RunnerEngine, effective: SamplingParameters, streams: int) -> tuple[float, float]:
    """Seconds for each token behind the first, the median of the streams; the runner's own, for each token of all."""

    async def ask(number: int) -> GenerationResult:
        asked = [user(f"Tell me how to bake bread number {number}.")]
        prompt = await engine.render(MODEL, asked, shape=effective.shape)
        return (await collect(engine, request(prompt, effective)))[1]

    await engine.load(MODEL)
    process = psutil.Process(running(engine).pid)
    began = process.cpu_times()
    results = await asyncio.gather(*map(ask, range(streams)))
    ended = process.cpu_times()
    tokens = [result.usage.completion_tokens for result in results]
    token_s = [result.timings.decode_s / max(1, count - 1) for result, count in zip(results, tokens, strict=True)]
    processor_s = ended.user + ended.system - began.user - began.system
    return statistics.median(token_s), processor_s / sum(tokens)
