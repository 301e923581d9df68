"""What a format and log probabilities cost a token: beside free output, in turns, alone and with eight streams."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.registry import RegisteredModel
from manent.domain.generation import SamplingParameters
from manent.domain.output_shape import FormatKind, OutputFormat, OutputShape
from tests.support.engines import CARD, MODEL, collect, engine_of, request, supervisor_settings, user
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
            for streams in STREAMS:
                slower: dict[str, list[float]] = {name: [] for name in sides}
                await _token_s(engine, sides["with a schema"], streams)
                for _ in range(rounds):
                    for name, asked in sides.items():
                        # The same again behind it: what drifts meanwhile is on both sides.
                        before, here = await _token_s(engine, free, streams), await _token_s(engine, asked, streams)
                        after = await _token_s(engine, free, streams)
                        slower[name].append(here / statistics.mean((before, after)))
                for name, ratios in slower.items():
                    median = statistics.median(ratios)
                    sys.stdout.write(f"  {streams} streams {name}: a token takes {median:.1%} of one in free output\n")


async def _token_s(engine: RunnerEngine, effective: SamplingParameters, streams: int) -> float:
    """How long a token behind the first one takes, the median of the streams."""

    async def ask(number: int) -> float:
        prompt = await engine.render(
            MODEL, [user(f"Tell me how to bake bread number {number}.")], shape=effective.shape
        )
        result = (await collect(engine, request(prompt, effective)))[1]
        return result.timings.decode_s / max(1, result.usage.completion_tokens - 1)

    return statistics.median(await asyncio.gather(*map(ask, range(streams))))
