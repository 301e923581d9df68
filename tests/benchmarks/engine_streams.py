"""Several streams at once: the whole server beside a bare BatchGenerator and mlx_lm.server, in one run.

    python -m tests.benchmarks.engine_streams MODEL_FOLDER [--tokens 64] [--rounds 5] [--requests 500]

Same messages, tokens, BLAS and machine; the sides take turns, and the ratios are medians over the rounds. Every round
has prompts of its own, so that no side answers from a cache. Tokens per second count all streams from the first
request to the last answer, evaluation of the prompts included. Then: what log probabilities cost, how long a stream
waits for its next token while a long prompt arrives, and whether many answers at once are those of each request alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from tests.benchmarks.sides import Answer, Messages, Side, ask_all, bare_side, http_side, mlx_server_side
from tests.support.server import prepare_home, serving

CONCURRENCIES = (1, 4, 8)
LONG_NUMBERS = 70
"""As many pairs of numbers as make about 1,500 tokens."""
TIE = 0.01
"""Log probabilities nearer than this may change places with the shape of the batch."""


def conversations(count: int, seed: int) -> list[Messages]:
    """Conversations that nobody had before, with long answers."""
    chance = random.Random(seed)
    things = ["river", "mill", "town", "lamp", "harbor", "bridge", "garden", "letter", "window", "ladder"]
    return [
        [{"role": "user", "content": f"{chance.random()} Tell a long story about a {chance.choice(things)}."}]
        for _ in range(count)
    ]


def speed(side: Side, asked: list[Messages], max_tokens: int) -> float:
    """Tokens per second of all streams together."""
    began_s = time.perf_counter()
    return side.run(asked, max_tokens) / (time.perf_counter() - began_s)


def compare(sides: list[Side], *, concurrency: int, tokens: int, rounds: int) -> dict[str, list[float]]:
    """The speeds of each side, a round each; the order changes with every round, and the first is a warm-up."""
    speeds: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(-1, rounds):
        turn = number % len(sides)
        for side in sides[turn:] + sides[:turn]:
            found = speed(side, conversations(concurrency, 1000 * concurrency + number), tokens)
            if number >= 0:
                speeds[side.name].append(found)
    return speeds


def ratio(speeds: dict[str, list[float]], one: Side, other: Side) -> float:
    """The median of the rounds' ratios, in percent."""
    return 100 * median(mine / theirs for mine, theirs in zip(speeds[one.name], speeds[other.name], strict=True))


async def worst_gap(address: str) -> tuple[float, float]:
    """Of four streams: the worst gap between tokens while 1,500 tokens arrive, and the median before; in seconds."""
    gaps: dict[bool, list[float]] = {False: [], True: []}
    arriving, ended = asyncio.Event(), asyncio.Event()

    async def follow(client: httpx.AsyncClient, messages: Messages) -> None:
        body = {"model": "default", "messages": messages, "stream": True, "temperature": 0, "max_tokens": 4000}
        body |= {"logit_bias": {"2": -100}}  # the starter model's end of sequence: nobody ends before the long prompt
        heard_s, count = 0.0, 0
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if ended.is_set():
                    return
                if line.startswith("data: "):
                    now_s, count = time.perf_counter(), count + 1
                    if count > 10:
                        gaps[arriving.is_set()].append(now_s - heard_s)
                    heard_s = now_s

    async with httpx.AsyncClient(base_url=address, timeout=600, trust_env=False) as client:
        streams = [asyncio.create_task(follow(client, messages)) for messages in conversations(4, 77)]
        while len(gaps[False]) < 80:  # noqa: ASYNC110 (four streams fill it)
            await asyncio.sleep(0.05)
        arriving.set()
        chance = random.Random(3)
        words = " ".join(f"{chance.random()} {number}" for number in range(LONG_NUMBERS))
        await ask_all(address, "default", [{"messages": [{"role": "user", "content": words}], "max_tokens": 1}])
        ended.set()
        await asyncio.gather(*streams)
    return max(gaps[True]), median(gaps[False])


def mixing(address: str, requests: int) -> tuple[int, int, int]:
    """How many of so many answers are those of each request alone, differ by a near tie, or differ without reason."""
    chance = random.Random(9)
    asked = [{"messages": messages, "max_tokens": chance.randint(2, 6)} for messages in conversations(requests, 4242)]
    told = [{**one, "logprobs": True, "top_logprobs": 2} for one in asked]
    alone = asyncio.run(ask_all(address, "default", told, at_once=1))
    together = asyncio.run(ask_all(address, "default", told, at_once=48))
    same = ties = 0
    for one, other in zip(alone, together, strict=True):
        pairs = list(zip(_told(one), _told(other), strict=False))
        differs = [n for n, (mine, theirs) in enumerate(pairs) if mine["token"] != theirs["token"]]
        if not differs:
            same += _text(one) == _text(other)
            continue
        best, second = pairs[differs[0]][0]["top_logprobs"]
        ties += best["logprob"] - second["logprob"] < TIE
    return same, ties, requests - same - ties


def _told(answer: Answer) -> list[Any]:
    entries: list[Any] = answer["choices"][0]["logprobs"]["content"]
    return entries


def _text(answer: Answer) -> str:
    return str(answer["choices"][0]["message"]["content"])


def run(folder: Path, *, tokens: int, rounds: int, requests: int) -> None:
    """Run all, and print."""
    with (
        tempfile.TemporaryDirectory() as temporary,
        serving(prepare_home(Path(temporary) / "home", folder)) as server,
    ):
        ours = http_side("manent", server.address, "default")
        with bare_side(folder) as bare, mlx_server_side(folder) as theirs:
            for concurrency in CONCURRENCIES:
                found = compare([ours, bare, theirs], concurrency=concurrency, tokens=tokens, rounds=rounds)
                _say(f"{concurrency} streams, tokens/s: " + ", ".join(f"{n} {median(s):.1f}" for n, s in found.items()))
                _say(f"  of a bare BatchGenerator {ratio(found, ours, bare):.1f} % (target: at least 95 %)")
                _say(f"  of mlx_lm.server {ratio(found, ours, theirs):.1f} % (target: more than 100 %)")
        told = http_side("with logprobs", server.address, "default", logprobs=True, top_logprobs=5)
        found = compare([ours, told], concurrency=4, tokens=tokens, rounds=rounds)
        _say(f"4 streams with logprobs: {ratio(found, told, ours):.1f} % of without (target: at least 95 %)")
        worst, usual = asyncio.run(worst_gap(server.address))
        _say(f"worst gap of 4 streams while 1,500 tokens arrive: {worst:.2f} s, {worst / usual:.1f} x the median (3 x)")
        if requests:
            same, ties, unexplained = mixing(server.address, requests)
            _say(
                f"{requests} requests at once: {same} as alone, {ties} differ by a near tie, {unexplained} unexplained"
            )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=500)
    options = parser.parse_args()
    run(options.folder.absolute(), tokens=options.tokens, rounds=options.rounds, requests=options.requests)


if __name__ == "__main__":
    main()
