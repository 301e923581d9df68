"""What everything around a handler costs: a chat with the scripted engine, through the chain and through bare Sanic.

Both sides run the same use case over a log of their own. The chain is whatever the application does: strict heads,
names, origins, credentials, limits of every kind, checked parameters, ids, headers, the request log. The bare side
reads the body with ``json``, calls the use case and writes the answer. One connection each, requests in turn; medians.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
from sanic import HTTPResponse, Request, Sanic

from manent.adapters.http.server import HttpServer
from manent.adapters.logs.setup import configure_logging
from manent.adapters.store.migrate import upgrade
from manent.app.bootstrap import Manent, assembled
from manent.app.settings import Settings
from manent.app.system import RandomIds
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.generation import RequestedParameters
from manent.domain.messages import Message, Role, TextPart
from manent.domain.usecases.accept_completion import ChatCommand
from manent.domain.usecases.complete_chat import CompleteChat

TARGET_MS = 0.5
WARM_UP = 200
REQUESTS = 1_000
LIMITS = "requests_per_minute=1000000000 requests_per_hour=1000000000 tokens_per_minute=1000000000 running_max=1000"
BODY = json.dumps({"model": "default", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 32}).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"authorization: Bearer none\r\nuser-agent: OpenAI/Python 3\r\nx-stainless-lang: python\r\n"
    b"content-length: %d\r\n\r\n" % len(BODY)
) + BODY


def bare_app(chat: CompleteChat) -> Sanic[Any, Any]:
    """Sanic, the use case, and nothing else."""
    app: Sanic[Any, Any] = Sanic("bare", configure_logging=False)
    app.config.ACCESS_LOG = False
    app.config.MOTD = False
    app.config.TOUCHUP = False  # it recompiles Sanic once in a process, and did so for the other side
    ids = RandomIds()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> HTTPResponse:
        asked = json.loads(request.body)
        messages = tuple(
            Message(message_id=ids.new("msg_"), role=Role(one["role"]), content=(TextPart(text=one["content"]),))
            for one in asked["messages"]
        )
        parameters = RequestedParameters(max_tokens=asked["max_tokens"])
        running = chat.start(
            ChatCommand(principal=LOCAL_OPERATOR, model=asked["model"], messages=messages, parameters=parameters)
        )
        generated = await running.generated()
        usage = generated.usage
        answer = {
            "id": running.completion_id,
            "object": "chat.completion",
            "created": generated.generated_at_us // 1_000_000,
            "model": generated.model_id,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": running.text}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        }
        return HTTPResponse(json.dumps(answer), content_type="application/json")

    return app


async def _serve(folder: Path) -> None:
    """The child: both servers, their ports on stdout, until stdin ends."""
    async with AsyncExitStack() as stack:
        ports = []
        for name in ("chain", "bare"):
            manent = await stack.enter_async_context(assembled(_settings(folder / name, limited=name == "chain")))
            listening = socket.create_server(("127.0.0.1", 0))
            ports.append(listening.getsockname()[1])
            await _start(manent, listening, chain=name == "chain")
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


async def _start(manent: Manent, listening: socket.socket, *, chain: bool) -> None:
    if chain:
        await HttpServer(manent.web_app(), listening).start()
        return
    server = await bare_app(manent.use_cases.complete_chat).create_server(sock=listening, return_asyncio_server=True)
    assert server is not None
    await server.startup()  # type: ignore[no-untyped-call]  # Sanic's
    await server.start_serving()  # type: ignore[no-untyped-call]  # Sanic's


def _settings(home: Path, *, limited: bool) -> Settings:
    home.mkdir(mode=0o700)
    every = dict.fromkeys(("limits_per_key", "limits_per_subject", "limits_per_model", "limits_per_address"), LIMITS)
    limits: dict[str, Any] = every if limited else {}
    settings = Settings(home=home, engine="scripted", _env_file=None, **limits)
    upgrade(settings.database)
    return settings


def _ask(connection: socket.socket) -> float:
    """One request and its answer, in milliseconds."""
    began = time.perf_counter()
    connection.sendall(REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    took_ms = (time.perf_counter() - began) * 1000
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError((head + body).decode())
    return took_ms


def compare(*, rounds: int) -> None:
    """Run and print."""
    shared = Path("/dev/shm")  # noqa: S108 (a folder in memory, where there is one: the disk is not what is measured)
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.overhead_chain", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert child.stdout is not None
            ports = json.loads(child.stdout.readline())
            _print([_round(ports) for _ in range(rounds)])
        finally:
            child.kill()
            child.wait()


def _round(ports: list[int]) -> tuple[float, float]:
    """The medians of the chain and of the bare side, requests in turn."""
    with (
        socket.create_connection(("127.0.0.1", ports[0])) as chain,
        socket.create_connection(("127.0.0.1", ports[1])) as bare,
    ):
        pairs = [(_ask(chain), _ask(bare)) for _ in range(WARM_UP + REQUESTS)][WARM_UP:]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def _print(rounds: list[tuple[float, float]]) -> None:
    chain_ms, bare_ms = (median(one[side] for one in rounds) for side in (0, 1))
    more_ms = median(chain - bare for chain, bare in rounds)
    figures = f"{chain_ms:.2f} ms through the chain, {bare_ms:.2f} ms through bare Sanic: {more_ms:+.2f} ms"
    lines = (
        f"One recorded chat with the scripted engine; {len(rounds)} rounds of {REQUESTS} on each side, medians:",
        f"  {figures} (target: at most +{TARGET_MS} ms)",
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    configure_logging(level="info", log_format="json")
    uvloop.run(_serve(Path(sys.argv[1])))
