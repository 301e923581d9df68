"""No words of a conversation and no secret reach what a server writes beside its answers, whatever goes wrong.

Canaries stand in messages, tool calls, metadata, images, keys and tokens; logs, metrics and spans are searched.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.logs.lines import JsonLines, console_lines
from manent.adapters.store.batch import AppendRequest
from manent.adapters.store.committer import Verdicts
from manent.adapters.store.sql import SQLEventStore
from manent.app import serve
from manent.app.settings import Settings
from manent.domain.errors import EngineUnavailable, GenerationFailed
from manent.domain.messages import ToolCall
from tests.support.scrapes import served
from tests.support.spans import TRACEPARENT, Spans

CANARY = "canary5f1cab"
IMAGE = base64.b64encode(CANARY.encode()).decode()
SECRETS = {
    "authorization": f"Bearer sk-{CANARY}",
    "x-api-key": CANARY,
    "cookie": f"session={CANARY}",
    "openai-organization": CANARY,
    "traceparent": TRACEPARENT,
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": json.dumps({"q": CANARY})}}
MESSAGES = [
    {"role": "system", "content": CANARY},
    {"role": "user", "content": f"say {CANARY}", "name": CANARY},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": CANARY},
    {"role": "tool", "tool_call_id": "call_1", "content": CANARY},
    {"role": "user", "content": CANARY},
]
TOOLS = [{"type": "function", "function": {"name": "look", "description": CANARY, "parameters": {"type": "object"}}}]
CHAT: dict[str, Any] = {
    "model": "default",
    "messages": MESSAGES,
    "tools": TOOLS,
    "metadata": {"note": CANARY},
    "user": CANARY,
    "stop": [f"{CANARY}."],
}
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}}


class World:
    """A server that is listened to."""

    def __init__(self, http: httpx.AsyncClient, engine: ScriptedEngine, store: SQLEventStore, spans: Spans) -> None:
        self.http = http
        self.engine = engine
        self.store = store
        self.spans = spans

    async def chat(self, **members: Any) -> int:
        """The status of a chat full of canaries."""
        answer = await self.http.post("/v1/chat/completions", json={**CHAT, **members}, headers=SECRETS)
        return answer.status_code


@pytest_asyncio.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World, None]:
    """A whole Manent whose every request is traced, and whose defects would be logged in full."""
    spans = Spans()
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setattr("manent.adapters.traces.otlp.OTLPSpanExporter", lambda: spans)
    settings = Settings(home=tmp_path, engine="scripted", traces="otlp", _env_file=None)
    asyncio.get_running_loop().set_exception_handler(serve._log_defect)
    async with served(settings) as (manent, http):
        engine, store = manent.use_cases.engine, manent.use_cases.store
        assert isinstance(engine, ScriptedEngine)
        assert isinstance(store, SQLEventStore)
        engine.script = Script(pieces=(CANARY, ToolCall(id="", name="look", arguments=CANARY)))
        yield World(http, engine, store, spans)


async def nobody_waits() -> None:
    """A task whose end nobody awaits."""
    raise ValueError(CANARY)


async def test_no_output_holds_what_was_said(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Well or ill: completions, refusals, defects of the engine, the store and a handler, and tasks that are lost."""
    caplog.set_level(logging.DEBUG)
    assert await world.chat() == 200
    assert await world.chat(session_id="ada", messages=MESSAGES[:2]) == 200
    assert await world.chat(stream=True, store=True) == 200
    schema = {"name": CANARY, "schema": {"type": "object", "title": CANARY}}
    assert await world.chat(response_format={"type": "json_schema", "json_schema": schema}) == 200
    refused: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": [PICTURE]}]},
        {"temperature": CANARY},
        {CANARY: CANARY},
        {"metadata": {CANARY * 10: CANARY}},
    ]
    for members in refused:
        assert await world.chat(**members) == 400
    raw = await world.http.post(
        "/v1/chat/completions", content=f"{{{CANARY}", headers={"content-type": "application/json"}
    )
    assert raw.status_code == 400
    assert (await world.http.get(f"/v1/sessions?{CANARY}={CANARY}")).status_code == 400
    for failure in (GenerationFailed(CANARY), EngineUnavailable(CANARY)):
        world.engine.script = Script(failure=failure, fails_at=1)
        assert await world.chat() >= 500
        assert await world.chat(stream=True) in {200, 500, 503}

    def defect(*_: object, **__: object) -> Any:
        raise RuntimeError(CANARY)

    with monkeypatch.context() as patch:
        patch.setattr(world.engine, "generate", defect)
        assert await world.chat() == 500
        patch.setattr(world.engine, "render", defect)
        assert await world.chat(stream=True) == 500
        patch.setattr("manent.adapters.http.chat.chat_command", defect)
        assert await world.chat() == 500

    async def refusing(_: Sequence[AppendRequest]) -> Verdicts:
        raise TypeError(CANARY)

    with monkeypatch.context() as patch:
        patch.setattr(world.store._committer._writer, "write", refusing)
        assert await world.chat() == 503
    lost = asyncio.create_task(nobody_waits())
    await asyncio.wait({lost})
    del lost
    metrics = (await world.http.get("/metrics")).text
    health = (await world.http.get("/health/ready")).text
    records = [record for record in caplog.records if not record.name.startswith("http")]  # not the client's own
    lines = [formatter.format(record) for record in records for formatter in (JsonLines(), console_lines())]
    written = capfd.readouterr()
    for name, text in {"metrics": metrics, "health": health, "out": written.out, "logs": "\n".join(lines)}.items():
        assert CANARY not in text, name
        assert IMAGE not in text, name
    assert CANARY not in "".join(span.to_json() for span in await world.spans.of(40))
    defects = [record for record in records if record.exc_info]
    assert len(defects) >= 4  # they are told, though not in words
