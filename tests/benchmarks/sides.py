"""Those that generate for several conversations at once, to be compared: bare mlx-lm, and servers of OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from manent.adapters.inference.openblas import runner_environment

READY_S = 120.0

Messages = list[dict[str, str]]
Answer = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One of those that are compared: generates for several conversations at once, and gives back the tokens in all."""

    name: str
    run: Callable[[list[Messages], int], int]


def serve_bare(folder: str) -> None:
    """The child: one mlx-lm BatchGenerator for each line of conversations on stdin."""
    from mlx_lm import load  # noqa: PLC0415 (in the child only, behind its preloaded BLAS)
    from mlx_lm.generate import BatchGenerator  # noqa: PLC0415 (as above)

    model, tokenizer = load(folder)[:2]
    stops = [[token] for token in tokenizer.eos_token_ids]
    for line in sys.stdin:
        asked = json.loads(line)
        prompts: list[list[int]] = [
            tokenizer.apply_chat_template(messages, add_generation_prompt=True)  # type: ignore[no-untyped-call]  # partly typed
            for messages in asked["conversations"]
        ]
        generator = BatchGenerator(model, stop_tokens=stops, prefill_step_size=64)
        left = set(generator.insert(prompts, max_tokens=[asked["max_tokens"]] * len(prompts)))
        tokens = 0
        while left:
            for response in generator.next_generated():  # type: ignore[no-untyped-call]  # not typed
                tokens += 1
                if response.finish_reason is not None:
                    left.discard(response.uid)
        generator.close()  # type: ignore[no-untyped-call]  # not typed
        sys.stdout.write(f"{tokens}\n")
        sys.stdout.flush()


@contextmanager
def bare_side(folder: Path) -> Iterator[Side]:
    """mlx-lm's BatchGenerator and nothing else."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.sides", str(folder)],
        env=runner_environment(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(conversations: list[Messages], max_tokens: int) -> int:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps({"conversations": conversations, "max_tokens": max_tokens}) + "\n")
        child.stdin.flush()
        return int(child.stdout.readline())

    try:
        yield Side("bare BatchGenerator", run)
    finally:
        child.kill()
        child.wait()


@contextmanager
def mlx_server_side(folder: Path) -> Iterator[Side]:
    """mlx_lm.server with its own defaults, and the same BLAS."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, "-m", "mlx_lm.server", "--model", str(folder), "--port", str(port), "--log-level", "ERROR"],
        env={**runner_environment(os.environ), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(f"{address}/v1/models")
        yield http_side("mlx_lm.server", address, str(folder))
    finally:
        child.kill()
        child.wait()


def _wait_until_ready(url: str) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        try:
            if httpx.get(url, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer")


def http_side(name: str, address: str, model: str, **members: Any) -> Side:
    """A server of OpenAI's API."""

    def run(conversations: list[Messages], max_tokens: int) -> int:
        asked = [{"messages": messages, "max_tokens": max_tokens, **members} for messages in conversations]
        return sum(answer["usage"]["completion_tokens"] for answer in asyncio.run(ask_all(address, model, asked)))

    return Side(name, run)


async def ask_all(address: str, model: str, asked: list[dict[str, Any]], *, at_once: int = 64) -> list[Answer]:
    """The answers to all requests, so many at once."""
    gate = asyncio.Semaphore(at_once)

    async def ask(client: httpx.AsyncClient, members: dict[str, Any]) -> Answer:
        async with gate:
            answer = await client.post("/v1/chat/completions", json={"model": model, "temperature": 0, **members})
        if answer.is_error:
            raise RuntimeError(f"{address}: {answer.status_code} {answer.text}")
        body: Answer = answer.json()
        return body

    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=address, timeout=600, trust_env=False, limits=limits) as client:
        return list(await asyncio.gather(*(ask(client, members) for members in asked)))


if __name__ == "__main__":
    serve_bare(sys.argv[1])
