"""What a runner costs: one stream through RunnerEngine beside bare mlx_lm, same tokens, same BLAS, interleaved.

    python tests/benchmarks/overhead_engine.py MODEL_FOLDER [--tokens 128] [--rounds 8] [--prompt-words 40]

Both start from token ids, so rendering is in neither. Each round runs both, in alternating order; the figures are
medians over the rounds of the ratio (tokens per second) and of the difference (time to the first token).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.openblas import runner_environment
from manent.adapters.inference.registry import RegisteredModel, Registry
from manent.adapters.inference.supervision import SupervisorSettings
from manent.domain.generation import GenerationRequest, ModelCard, RenderedPrompt, SamplingParameters, TextDelta
from manent.domain.messages import Message, Role, TextPart
from manent.domain.model_events import ModelEvent

Figures = tuple[float, float, list[int]]
"""Seconds to the first token, tokens per second after the second, and the token ids."""


class WallClock:
    """The real clock."""

    def now_us(self) -> int:
        """Microseconds since 1970."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


def serve_bare(folder: Path) -> None:
    """The child: generate with mlx_lm for each line of token ids on stdin."""
    from mlx_lm import load, stream_generate  # noqa: PLC0415 (in the child only, behind its preloaded BLAS)

    model, tokenizer = load(str(folder))[:2]
    for line in sys.stdin:
        ask = json.loads(line)
        began, moments, tokens = time.perf_counter(), [], []
        for response in stream_generate(model, tokenizer, ask["token_ids"], max_tokens=ask["max_tokens"]):
            moments.append(time.perf_counter() - began)
            tokens.append(response.token)
        sys.stdout.write(json.dumps(figures(moments, tokens)) + "\n")
        sys.stdout.flush()


def figures(moments: list[float], tokens: list[int]) -> Figures:
    """First-token time and decoding speed from the moments at which tokens came.

    The speed is counted from the second token: the engine hands the first one out an evaluation earlier than mlx-lm
    does, and would otherwise be charged for that.
    """
    return moments[0], (len(moments) - 2) / (moments[-1] - moments[1]), tokens


async def through_engine(engine: RunnerEngine, prompt: RenderedPrompt, max_tokens: int) -> Figures:
    """One generation through the product's engine."""
    parameters = SamplingParameters(temperature=0.0, top_p=1.0, max_tokens=max_tokens, seed=0)
    request = GenerationRequest(completion_id="bench", model_id="m", prompt=prompt, parameters=parameters)
    began = time.perf_counter()
    moments: list[float] = []
    tokens: list[int] = []
    async for output in engine.generate(request):
        if isinstance(output, TextDelta):
            moments.append(time.perf_counter() - began)
            tokens += output.token_ids
    return figures(moments, tokens)


def through_bare(child: subprocess.Popen[str], prompt: RenderedPrompt, max_tokens: int) -> Figures:
    """One generation in the bare child."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps({"token_ids": prompt.token_ids, "max_tokens": max_tokens}) + "\n")
    child.stdin.flush()
    first_s, speed, tokens = json.loads(child.stdout.readline())
    return first_s, speed, tokens


def report(rounds: list[tuple[Figures, Figures]]) -> Iterator[str]:
    """The figures, a line each."""
    same = all(ours[2] == bare[2] for ours, bare in rounds)
    yield f"tokens/s   engine {median(o[1] for o, _ in rounds):.2f}   bare {median(b[1] for _, b in rounds):.2f}"
    yield f"ratio      {100 * median(o[1] / b[1] for o, b in rounds):.1f} %   (target: at least 97 %)"
    ours_ms, bare_ms = (1e3 * median(pair[side][0] for pair in rounds) for side in (0, 1))
    yield f"first      engine {ours_ms:.0f} ms   bare {bare_ms:.0f} ms"
    yield f"later by   {1e3 * median(o[0] - b[0] for o, b in rounds):.1f} ms   (target: at most 10 ms)"
    yield f"tokens     {'the same' if same else 'DIFFERENT'}"


async def compare(folder: Path, tokens: int, rounds: int, prompt_words: int) -> None:
    """Run and print."""

    async def ignore(event: ModelEvent) -> None:
        del event

    card = ModelCard(model_id="m", context_length=8192, created_at_s=0)
    settings = SupervisorSettings(digest_folder=Path(tempfile.gettempdir()) / "manent-bench-digests")
    registry = Registry([RegisteredModel(card=card, path=folder)])
    engine = RunnerEngine(registry, settings=settings, clock=WallClock(), on_event=ignore)
    text = "Tell me a long story about these things: " + " ".join(["river"] * prompt_words)
    message = Message(message_id="m1", role=Role.USER, content=(TextPart(text=text),))
    child = subprocess.Popen(  # noqa: ASYNC220 (before anything is measured)
        [sys.executable, __file__, str(folder), "--bare"],
        env=runner_environment(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        prompt = await engine.render("m", [message])
        pairs = []
        for number in range(-1, rounds):
            if number % 2:
                ours = await through_engine(engine, prompt, tokens)
                bare = await asyncio.to_thread(through_bare, child, prompt, tokens)
            else:
                bare = await asyncio.to_thread(through_bare, child, prompt, tokens)
                ours = await through_engine(engine, prompt, tokens)
            sys.stdout.write(
                f"round {number}: engine {ours[1]:.2f} tok/s {ours[0]:.3f} s, bare {bare[1]:.2f} {bare[0]:.3f}\n"
            )
            if number >= 0:  # the round before the first warms both up
                pairs.append((ours, bare))
        sys.stdout.write(f"prompt     {len(prompt.token_ids)} tokens\n" + "\n".join(report(pairs)) + "\n")
    finally:
        child.kill()
        child.wait()
        await engine.aclose(2.0)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--prompt-words", type=int, default=40)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        serve_bare(options.folder)
    else:
        asyncio.run(compare(options.folder, options.tokens, options.rounds, options.prompt_words))


if __name__ == "__main__":
    main()
