"""What the whole server costs: a recorded, streamed completion over HTTP beside bare mlx_lm, interleaved.

The same messages, tokens and BLAS on both sides. Each round runs both, in alternating order; the figures are medians
over the rounds of the ratio (tokens per second) and of the difference (time from asking to the first text).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from httpx_sse import connect_sse

from manent.adapters.inference.openblas import runner_environment
from tests.support.server import Server, prepare_home, serving

PROMPT = "Tell me a long story about a river, a mill and a town. Do not stop before the end."
MESSAGES = [{"role": "user", "content": PROMPT}]


def serve_bare(folder: str) -> None:
    """The child: template, tokenize and generate with mlx_lm alone, for each line on stdin."""
    from mlx_lm import load, stream_generate  # noqa: PLC0415 (in the child only, behind its preloaded BLAS)

    model, tokenizer = load(folder)[:2]
    for line in sys.stdin:
        asked = json.loads(line)
        began, moments, texts = time.perf_counter(), [], []
        prompt = tokenizer.apply_chat_template(asked["messages"], add_generation_prompt=True)  # type: ignore[no-untyped-call]  # partly typed
        for response in stream_generate(model, tokenizer, prompt, max_tokens=asked["max_tokens"]):
            moments.append(time.perf_counter() - began)
            texts.append(response.text)
        print(json.dumps([moments[0], (len(moments) - 1) / (moments[-1] - moments[0]), "".join(texts)]), flush=True)  # noqa: T201 (the answer)


def through_server(client: httpx.Client, max_tokens: int, session_id: str) -> list[Any]:
    """One completion over HTTP, streamed and recorded with its content."""
    body = {
        "model": "default",
        "messages": MESSAGES,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "session_id": session_id,
    }
    began, moments, texts, tokens = time.perf_counter(), [], [], 0
    with connect_sse(client, "POST", "/v1/chat/completions", json=body) as source:
        for event in source.iter_sse():
            if event.data == "[DONE]":
                break
            chunk = json.loads(event.data)
            text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            if text:
                moments.append(time.perf_counter() - began)
                texts.append(text)
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
    return [moments[0], (tokens - 1) / (moments[-1] - moments[0]), "".join(texts)]


def through_bare(child: subprocess.Popen[str], max_tokens: int) -> list[Any]:
    """One generation in the bare child."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps({"messages": MESSAGES, "max_tokens": max_tokens}) + "\n")
    child.stdin.flush()
    figures: list[Any] = json.loads(child.stdout.readline())
    return figures


def compare(folder: Path, *, tokens: int, rounds: int) -> None:
    """Run and print."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.overhead_http", str(folder)],
        env=runner_environment(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with (
            tempfile.TemporaryDirectory() as temporary,
            serving(prepare_home(Path(temporary) / "home", folder)) as server,
        ):
            _print(_rounds(server, child, tokens, rounds), tokens)
    finally:
        child.kill()
        child.wait()


def _rounds(
    server: Server, child: subprocess.Popen[str], tokens: int, rounds: int
) -> list[tuple[list[Any], list[Any]]]:
    pairs = []
    with httpx.Client(base_url=server.address, timeout=300, trust_env=False) as client:
        for number in range(-1, rounds):
            ask = [lambda: through_server(client, tokens, f"bench-{number}"), lambda: through_bare(child, tokens)]  # noqa: B023 (called at once)
            answers = {side: ask[side]() for side in ((0, 1) if number % 2 else (1, 0))}
            if number >= 0:  # the round before the first warms both up
                pairs.append((answers[0], answers[1]))
    return pairs


def _print(pairs: list[tuple[list[Any], list[Any]]], tokens: int) -> None:
    ratio = 100 * median(ours[1] / bare[1] for ours, bare in pairs)
    later_ms = 1000 * median(ours[0] - bare[0] for ours, bare in pairs)
    same = all(ours[2] == bare[2] for ours, bare in pairs)
    speeds = [median(pair[side][1] for pair in pairs) for side in (0, 1)]
    firsts_ms = [1000 * median(pair[side][0] for pair in pairs) for side in (0, 1)]
    lines = (
        f"One stream of {tokens} tokens over HTTP, recorded, beside bare mlx_lm; {len(pairs)} rounds, medians:",
        f"  tokens/s     {speeds[0]:.2f} beside {speeds[1]:.2f}: {ratio:.1f} % (target: at least 95 %)",
        f"  first token  {firsts_ms[0]:.0f} beside {firsts_ms[1]:.0f} ms: {later_ms:+.1f} ms (target: at most +15 ms)",
        f"  text         {'the same' if same else 'DIFFERENT'}",
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    serve_bare(sys.argv[1])
