"""Streams whose server is killed, and streams that are followed on another server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import URL

from tests.support.http import sse_events
from tests.support.server import Server, serving
from tests.support.valkey import ValkeyServer

STORY = [{"role": "user", "content": "Tell me a long story about the sea."}]


class Stream:
    """What a client has of a stream, and the id of its last event."""

    def __init__(self) -> None:
        self.completion_id = self.last_id = self.text = ""
        self.error: dict[str, Any] | None = None

    def take(self, line: str) -> None:
        """Read a line."""
        if line.startswith("id: "):
            self.last_id = line.removeprefix("id: ")
        if line.startswith("data: {"):
            chunk = json.loads(line.removeprefix("data: "))
            self.error = chunk.get("error")
            self.completion_id = chunk.get("id", self.completion_id)
            for choice in chunk.get("choices", ()):
                self.text += choice["delta"].get("content") or ""

    def resume(self, server: Server) -> None:
        """Read the rest at ``server``."""
        answer = httpx.get(
            f"{server.address}/v1/chat/completions/{self.completion_id}/stream",
            headers={"Last-Event-ID": self.last_id},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        assert sse_events(answer.text)
        for line in answer.text.splitlines():
            self.take(line)


def begun(server: Server, *, chars: int, **members: Any) -> Stream:
    """A stream of which the client has read so much before it lost its connection."""
    stream = Stream()
    body = {"model": "default", "messages": STORY, "temperature": 0, "stream": True, **members}
    with httpx.stream("POST", f"{server.address}/v1/chat/completions", json=body, timeout=60) as answer:
        lines: Iterator[str] = answer.iter_lines()
        while len(stream.text) < chars:
            stream.take(next(lines))
    return stream


def terminal(server: Server, session_id: str) -> dict[str, Any]:
    """The payload of the terminal event of the session's one completion, once it is there."""
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        params = {"stream": f"session-{session_id}", "limit": "100"}
        events = httpx.get(f"{server.address}/v1/events", params=params, timeout=30).json()["data"]
        for event in events:
            if event["header"]["type"] in {"CompletionGenerated", "CompletionFailed", "CompletionCancelled"}:
                payload: dict[str, Any] = event["payload"]
                return payload
        time.sleep(0.1)
    raise AssertionError("no terminal event")


def test_a_stream_whose_server_is_killed_is_resumed_after_the_restart(home: Path) -> None:
    """What was generated is delivered and recorded, and the end is honest: the server ended before the completion."""
    with serving(home) as server:
        stream = begun(server, chars=20, session_id="killed", max_tokens=1000, background=True)
        seen, until_s = stream.text, time.monotonic() + 60
        (path,) = (home / "streams").iterdir()
        size = path.stat().st_size
        while path.stat().st_size < 2 * size:
            assert time.monotonic() < until_s
            time.sleep(0.02)
        server.kill()
    with serving(home) as server:
        stream.resume(server)
        ended = terminal(server, "killed")
        assert (ended["code"], ended["text"]) == ("interrupted", stream.text)
        assert stream.error is not None
        assert stream.error["code"] == "interrupted"
        assert stream.text.startswith(seen)
        assert len(stream.text) > len(seen)


def follow_and_cancel(first: Server, second: Server) -> None:
    """A response of the first server is read at the second while it runs, and cancelled there: one end for both."""
    body = {"model": "default", "input": STORY, "background": True, "max_output_tokens": 1000, "temperature": 0}
    made = httpx.post(f"{first.address}/v1/responses", json=body, timeout=60).json()
    assert made["status"] == "queued"
    path = f"/v1/responses/{made['id']}"
    with httpx.stream("GET", f"{second.address}{path}?stream=true", timeout=60) as following:
        lines = following.iter_lines()
        while "response.output_text.delta" not in next(lines):
            pass
        cancelled = httpx.post(f"{second.address}{path}/cancel", timeout=60).json()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert cancelled["status"] == "cancelled"
    assert events[-1]["response"] == cancelled == httpx.get(f"{first.address}{path}", timeout=60).json()
    assert terminal(second, made["session_id"])["reason"] == "response_cancelled"


def test_a_stream_is_followed_on_another_server_and_after_its_own_is_killed(
    home: Path, tmp_path: Path, postgres_url: URL, own_valkey: ValkeyServer
) -> None:
    """Two servers, one PostgreSQL, one Valkey: what the first generates, the second tells, to whatever end it has."""
    (second_home := tmp_path / "second").mkdir()
    shared = {"database_url": postgres_url.render_as_string(hide_password=False), "redis_url": own_valkey.url}
    with (
        serving(home, **shared) as first,
        serving(second_home, engine="scripted", sweep_interval_s=1, **shared) as second,
    ):
        stream = begun(first, chars=10, session_id="whole", max_tokens=40, background=True)
        stream.resume(second)
        assert stream.error is None
        assert terminal(second, "whole")["text"] == stream.text
        assert httpx.get(f"{first.address}/v1/sessions/whole/messages").json()["data"][-1]["content"] == stream.text

        follow_and_cancel(first, second)
        cut = begun(first, chars=10, session_id="cut", max_tokens=1000, background=True)
        first.kill()
        cut.resume(second)
        assert cut.error is not None
        assert cut.error["code"] == "interrupted"
        assert terminal(second, "cut")["text"] == cut.text
