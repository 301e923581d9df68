"""What a client hears while its long prompt is read: when the head and the first event come, and the longest silence.

Each round sends another prompt of at least 1,500 tokens to a real server with the starter model, and streams the
answer. The limits that clients and proxies set are on the first byte and on silence, not on the first token.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import httpx

from tests.support.server import prepare_home, serving

TOKENS = 1_500
WORDS = ("river", "mill", "town", "boat", "stone", "bridge", "field", "tree", "road", "house")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Seconds from asking to the head, to the first event and to that of the first token; and the longest silence."""

    head_s: float
    event_s: float
    token_s: float
    silence_s: float


def long_prompt(number: int, *, tokens: int = TOKENS) -> str:
    """Words that are about a token each, others for each number."""
    words = [WORDS[(number + place * (number + 3) + place // 7) % len(WORDS)] for place in range(tokens)]
    return f"Story {number}: " + " ".join(words)


def hear(client: httpx.Client, number: int) -> Heard:
    """One streamed answer to a long prompt; the role is its first event, and the second comes of the first token."""
    messages = [{"role": "user", "content": long_prompt(number)}]
    body = {"model": "default", "messages": messages, "max_tokens": 2, "temperature": 0, "stream": True}
    began, moments, events = time.perf_counter(), [], []
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        head_s = time.perf_counter() - began
        for line in answer.iter_lines():
            moments.append(time.perf_counter() - began)
            if line.startswith("data: {"):
                events.append(moments[-1])
    silences = [later - earlier for earlier, later in pairwise([0.0, head_s, *moments])]
    return Heard(head_s=head_s, event_s=events[0], token_s=events[1], silence_s=max(silences))


def compare(folder: Path, *, rounds: int) -> None:
    """Run and print."""
    with (
        tempfile.TemporaryDirectory(prefix="manent-bench-") as temporary,
        serving(prepare_home(Path(temporary) / "home", folder)) as server,
        httpx.Client(base_url=server.address, timeout=300, trust_env=False) as client,
    ):
        client.post("/v1/models/default/load").raise_for_status()
        found = [hear(client, number) for number in range(rounds + 1)][1:]  # the first warms all up
    sys.stdout.write("\n".join(_lines(found)) + "\n")


def _lines(found: Sequence[Heard]) -> list[str]:
    return [
        f"A prompt of {TOKENS:,} tokens, streamed; medians of {len(found)} rounds, and the worst:",
        _line("head", [one.head_s for one in found], "target: at most 100 ms"),
        _line("first event", [one.event_s for one in found], "target: at most 100 ms"),
        _line("first token", [one.token_s for one in found], "the prompt is read until then"),
        _line("longest silence", [one.silence_s for one in found], "target: at most 5,000 ms"),
    ]


def _line(name: str, seconds: Sequence[float], told: str) -> str:
    return f"  {name:16} {1000 * median(seconds):6.0f} ms, {1000 * max(seconds):6.0f} ms ({told})"
