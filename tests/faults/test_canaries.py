"""A real server with a real model, at its most talkative: no words and no secret in anything that it writes.

``tests/integration/test_canaries.py`` has more of what may go wrong inside; here are processes, files and pipes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.support.commands import manent
from tests.support.server import Server, serving

CANARY = "canary7d20ee"
JWT_SECRET = f"{CANARY}-0123456789-abcdefghijklmnop"
REDIS = f"redis://:{CANARY}@127.0.0.1:1/0"
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": json.dumps({"q": CANARY})}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": CANARY},
    {"role": "user", "content": f"say {CANARY}"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": CANARY},
    {"role": "user", "content": "And now a long story about the sea."},
]
SCOPES = ("--scope", "admin", "--scope", "chat", "--scope", "sessions", "--scope", "models:read")
# What of the home has words on purpose: the log itself, keys, and the prefix cache.
KEPT = ("manent.db", "keys", "prefix", "models")


class Listener:
    """Takes what is posted: spans are kept, anything else is answered with 500 and the canary."""

    def __init__(self) -> None:
        self.spans: list[bytes] = []
        self.hooks: list[str] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                is_span = self.path == "/v1/traces"
                if is_span:
                    listener.spans.append(body)
                else:
                    listener.hooks.append(self.path)
                self.send_response(200 if is_span else 500, CANARY)
                self.end_headers()
                self.wfile.write(b"" if is_span else CANARY.encode())

            def log_message(self, *_: object) -> None:
                """Nothing is written of it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def listening() -> Iterator[Listener]:
    """A listener, in a thread."""
    listener = Listener()
    thread = Thread(target=listener.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        listener.server.shutdown()
        listener.server.server_close()
        thread.join(timeout=5)


def wait_until(what: Callable[[], object], *, limit_s: float = 20.0) -> None:
    """Until it is so."""
    deadline_s = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline_s, "it did not come"
        time.sleep(0.02)


def said(server: Server, words: str) -> Callable[[], bool]:
    """Whether a line has come that has ``words``."""
    return lambda: any(words in line for line in server.output)


def make_trouble(server: Server, http: httpx.Client, hook: str) -> None:
    """Completions, refusals and failures of every kind, each with canaries in it."""
    made = http.post("/v1/webhooks", json={"url": hook, "events": ["CompletionGenerated"], "content": True})
    assert made.status_code == 201, made.text

    def chat(**members: Any) -> httpx.Response:
        body = {"model": "default", "messages": MESSAGES, "max_tokens": 2, "user": CANARY, "stop": [f"{CANARY}."]}
        return http.post("/v1/chat/completions", json={**body, **members})

    assert chat(metadata={"note": CANARY}, store=True).status_code == 200
    assert chat(session_id="ada", messages=MESSAGES[:2], stream=True).status_code == 200
    overflowing = [{"role": "user", "content": f"{CANARY} " * 9000}]
    assert chat(messages=overflowing).json()["error"]["code"] == "context_length_exceeded"
    for wrong in ({"temperature": CANARY}, {CANARY: CANARY}, {"response_format": {"type": CANARY}}):
        assert chat(**wrong).status_code == 400
    json_type = {"content-type": "application/json"}
    assert http.post("/v1/chat/completions", content=f'{{"{CANARY}', headers=json_type).status_code == 400
    assert http.get("/v1/sessions", params={CANARY: CANARY}).status_code == 400
    token = jwt.encode({"sub": CANARY, "iss": CANARY, "aud": CANARY, "exp": 1}, f"{CANARY}-" * 4, "HS256")
    for credential in (f"sk-{CANARY}", f"mnt_{CANARY}", token, f"{token[:-4]}{CANARY}"):
        assert http.get("/v1/models", headers={"authorization": f"Bearer {credential}"}).status_code == 401
    with socket.create_connection(("127.0.0.1", urlsplit(server.address).port or 0)) as raw:
        raw.sendall(f"{CANARY} {CANARY}\r\n{CANARY}: {CANARY}\r\n\r\n".encode())
        raw.recv(1000)
    address, key = f"ws{server.address.removeprefix('http')}/v1/ws/chat", http.headers["authorization"].split()[1]
    with pytest.raises(InvalidStatus):
        connect(address, subprotocols=[Subprotocol("manent.v1"), Subprotocol(f"bearer.{CANARY}")], proxy=None)
    with connect(address, subprotocols=[Subprotocol("manent.v1"), Subprotocol(f"bearer.{key}")], proxy=None) as web:
        web.send(CANARY)
        web.send(json.dumps({"type": CANARY, "id": "one", "body": {"messages": MESSAGES}}))
        body = {"model": "default", "messages": MESSAGES, "max_tokens": 2}
        web.send(json.dumps({"type": "chat", "id": "two", "body": body}))
        heard = (str(web.recv(timeout=30)) for _ in range(50))
        assert any('"two"' in text and '"done"' in text for text in heard)
    with closing(sqlite3.connect(server.home / "manent.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert chat().status_code == 503
    with http.stream(
        "POST", "/v1/chat/completions", json={"model": "default", "messages": MESSAGES, "stream": True}
    ) as s:
        lines = s.iter_lines()
        next(line for line in lines if '"content":"' in line and '"content":""' not in line)
        for pid in server.runner_pids():
            os.kill(pid, signal.SIGABRT)
        assert "error" in "".join(lines)


@pytest.mark.timeout(120)
def test_no_output_of_a_server_holds_what_was_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output and error, metrics, spans, health, the doctor and the home's other files are searched."""
    settings = {"redis_url": REDIS, "jwt_algorithm": "HS256", "jwt_secret": JWT_SECRET}
    settings |= {"jwt_issuer": "https://issuer.example", "jwt_audience": "manent"}
    key: str = json.loads(manent("keys", "create", "ops", "--subject", "ann", *SCOPES, "--json", home=home).stdout)[
        "key"
    ]
    with listening() as listener:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listener.address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-key={CANARY}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        loud = {"log_level": "debug", "log_format": "json", "traces": "otlp", "webhook_urls": "private"}
        with serving(home, **settings, **loud, webhook_attempts_max=1) as server:
            headers = {
                "authorization": f"Bearer {key}",
                "cookie": CANARY,
                "user-agent": CANARY,
                "x-forwarded-for": CANARY,
            }
            with httpx.Client(base_url=server.address, headers=headers, timeout=60) as http:
                make_trouble(server, http, f"{listener.address}/{CANARY}?token={CANARY}")
                wait_until(lambda: listener.hooks)
                texts = {path: http.get(path).text for path in ("/metrics", "/health/ready")}
            wait_until(said(server, "has a dead letter"))
            texts["doctor"] = manent("doctor", "--json", home=home, **settings, engine="scripted").stdout
            assert server.stop() == 0
        texts["output"] = "".join(server.output)
        texts["spans"] = b"".join(listener.spans).decode(errors="replace")
    for path in home.rglob("*"):
        if path.is_file() and not any(part.startswith(KEPT) for part in path.relative_to(home).parts):
            texts[path.name] = path.read_bytes().decode(errors="replace")
    assert listener.spans
    assert "the runner of smollm2-135m-instruct ended: it was killed" in texts["output"]
    assert "could not answer as usual" not in texts["output"]  # the stream that it broke has its own line
    assert json.loads(server.output[-1])["level"] in {"info", "debug", "warning"}
    for name, text in texts.items():
        for secret in (CANARY, key, key[-16:]):
            assert secret not in text, f"{name}: {[line for line in text.splitlines() if secret in line][:3]}"


@pytest.mark.parametrize(
    "settings",
    [
        {"database_url": f"postgresql+asyncpg://manent:{CANARY}@127.0.0.1:1/manent"},
        {"database_url": f"postgresql+asyncpg://manent:{CANARY}"},
        {"database_url": f"postgresql+asyncpg://manent@127.0.0.1/manent?password={CANARY}"},
        {"database_url": f"postgres://manent:a@{CANARY}/b@127.0.0.1/manent"},
        {"database_url": f"host=127.0.0.1 password={CANARY}"},
        {"redis_url": REDIS},
        {"redis_url": f"redis://127.0.0.1/0?password={CANARY}"},
        {"redis_url": f"http://ann:{CANARY}@127.0.0.1/0"},
        {"jwt_secret": CANARY},
        {"jwt_algorithm": "HS256", "jwt_secret": JWT_SECRET},
        {"jwt_jwks": f"https://ann:{CANARY}@issuer.example/"},
        {"metrics_port": 1, "limits_per_key": "requests_per_minute=x", "jwt_secret": CANARY},
    ],
)
def test_wrong_settings_are_told_without_their_secrets(tmp_path: Path, settings: dict[str, object]) -> None:
    """Whatever is wrong with an address, its password is not in what the doctor says of it."""
    done = manent("doctor", home=tmp_path, engine="scripted", **settings)
    assert done.stdout + done.stderr
    assert CANARY not in done.stdout + done.stderr
