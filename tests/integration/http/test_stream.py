"""Streams: the exact order of events, keep-alives, failures in the middle, and when [DONE] may be said."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.http.wire_completions import ChatCompletionChunk
from manent.adapters.inference.script import Script
from manent.adapters.store.memory import MemoryEventStore
from manent.domain.errors import EngineUnavailable
from manent.domain.events import CompletionGenerated
from tests.support.http import USER, WAIT_S, Running, running_server, sse_events

REQUEST = {"model": "default", "messages": [USER], "stream": True}


async def one_by_one(_delta: int) -> None:
    """Let the writer send each delta before the next one."""
    for _ in range(5):
        await asyncio.sleep(0)


def chunks(text: str) -> list[dict[str, Any]]:
    """The chunks of a stream that ended well, each of which fits the description."""
    events = sse_events(text)
    assert events.pop() == "[DONE]"
    for event in events:
        ChatCompletionChunk.model_validate_json(event, strict=True)
    return [json.loads(event) for event in events]


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_stream_has_openais_order(prefix: str) -> None:
    """Role, deltas, finish_reason, [DONE]; one id, one time, and no usage where it was not asked for."""
    async with running_server(Script(before_delta=one_by_one)) as running:
        answer = await running.chat(f"{prefix}/chat/completions", stream=True)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert "content-length" not in answer.headers
        assert answer.text.endswith("data: [DONE]\n\n")
        first, *deltas, last = chunks(answer.text)
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert [chunk["choices"][0]["delta"]["content"] for chunk in deltas] == list(Script().pieces)
        assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in (first, *deltas))
        assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in (first, *deltas, last)}) == 1
        assert all("usage" not in chunk for chunk in (first, *deltas, last))
        assert last["system_fingerprint"].startswith("fp_")
        assert not any(line.startswith(("retry:", "event:")) for line in answer.text.splitlines())


async def test_usage_comes_last_where_it_was_asked_for() -> None:
    """The usage chunk has no choices, the others carry ``usage: null``."""
    async with running_server() as running:
        answer = await running.chat(stream=True, stream_options={"include_usage": True}, session_id="s")
        *others, usage = chunks(answer.text)
        assert all(chunk["usage"] is None for chunk in others)
        assert usage["choices"] == []
        assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (4, 6)
        assert answer.headers["x-session-id"] == usage["session_id"] == "s"


async def test_deltas_that_are_ready_together_are_sent_together() -> None:
    """A burst is one chunk, and text that is not certain yet (an empty delta) is none."""
    async with running_server(Script(pieces=("a", "", "b", ""))) as running:
        _, *deltas, _ = chunks((await running.chat(stream=True)).text)
        assert [chunk["choices"][0]["delta"]["content"] for chunk in deltas] == ["ab"]


async def test_a_huge_burst_is_cut_into_bounded_chunks() -> None:
    """No chunk grows with the backlog."""
    async with running_server(Script(pieces=("x" * 1000,) * 500)) as running:
        _, *deltas, _ = chunks((await running.chat(stream=True)).text)
        sizes = [len(chunk["choices"][0]["delta"]["content"]) for chunk in deltas]
        assert sum(sizes) == 500_000
        assert max(sizes) < 20_000


async def first_event(answer: httpx.Response, lines: Any) -> dict[str, Any]:
    """The first chunk of a stream that goes on."""
    assert answer.status_code == 200
    async with asyncio.timeout(WAIT_S):
        line = await anext(lines)
        while not line.startswith("data: "):
            line = await anext(lines)
        chunk: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return chunk


async def test_the_role_chunk_comes_before_the_first_token() -> None:
    """Status, headers and role go out on acceptance; silence is filled with comments, which hold no event."""
    go_on = asyncio.Event()

    async def held(_: int) -> None:
        await go_on.wait()

    limits = HttpLimits(ping_interval_s=0.02)
    async with (
        running_server(Script(before_delta=held), limits=limits) as running,
        running.http.stream("POST", "/v1/chat/completions", json=REQUEST) as answer,
    ):
        lines = aiter(answer.aiter_lines())
        assert (await first_event(answer, lines))["choices"][0]["delta"]["role"] == "assistant"
        assert running.engine.requests
        async with asyncio.timeout(WAIT_S):
            silence = [await anext(lines) for _ in range(4)]
        assert silence == ["", ": ping", ": ping", ": ping"]
        go_on.set()
        rest = [line async for line in lines if line.startswith("data")]
        assert rest[-1] == "data: [DONE]"


async def test_a_failure_in_the_middle_is_told_and_ends_the_stream() -> None:
    """Clients take a cut stream for success: the error is always an event, and [DONE] is never said."""
    script = Script(failure=EngineUnavailable("the runner crashed"), fails_at=2, before_delta=one_by_one)
    async with running_server(script) as running:
        answer = await running.chat(stream=True)
        assert answer.status_code == 200
        events = sse_events(answer.text)
        assert "[DONE]" not in answer.text
        assert json.loads(events[-1]) == {
            "error": {
                "message": "the runner crashed",
                "type": "server_error",
                "param": None,
                "code": "runner_crashed",
            }
        }
        assert [json.loads(event)["choices"][0]["delta"].get("content") for event in events[:-1]] == ["", "Hello", ","]
        assert (await running.payload_of("CompletionFailed"))["code"] == "runner_crashed"


@pytest.mark.parametrize("reason", ["session_deleted", "shutting_down"])
async def test_a_stream_that_somebody_stops_says_so(reason: str) -> None:
    """A stream whose session is deleted ends in ``cancelled``, one that a shutdown cuts in ``shutting_down``."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def held(_: int) -> None:
        reached.set()
        await never.wait()

    async with running_server(Script(before_delta=held)) as running:
        streaming = asyncio.create_task(running.chat(stream=True, session_id="s"))
        await asyncio.wait_for(reached.wait(), WAIT_S)
        await stop(running, reason)
        error = json.loads(sse_events((await streaming).text)[-1])["error"]
        assert error["code"] == ("cancelled" if reason == "session_deleted" else "shutting_down")
        assert (await running.payload_of("CompletionCancelled"))["reason"] == reason


async def stop(running: Running, reason: str) -> None:
    """Stop what runs, as one of its owners would."""
    if reason == "session_deleted":
        assert (await running.http.delete("/v1/sessions/s")).status_code == 200
    else:
        await running.use_cases.live.drain(finish_s=0.0, close_s=1.0)


@pytest.mark.parametrize("stream", [True, False])
async def test_success_is_said_only_after_the_commit(
    stream: bool,  # noqa: FBT001 (a parameter of the test)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the event that records the completion is not committed, neither [DONE] nor a body goes out."""
    commit, committing = asyncio.Event(), asyncio.Event()
    append = MemoryEventStore.append

    async def slow_append(self: MemoryEventStore, stream_id: str, events: Any, **rest: Any) -> Any:
        if any(isinstance(event, CompletionGenerated) for event in events):
            committing.set()
            await commit.wait()
        return await append(self, stream_id, events, **rest)

    monkeypatch.setattr(MemoryEventStore, "append", slow_append)
    async with running_server() as running:
        received = bytearray()

        async def read() -> None:
            request = {**REQUEST, "stream": stream}
            async with running.http.stream("POST", "/v1/chat/completions", json=request) as answer:
                async for data in answer.aiter_raw():
                    received.extend(data)

        reading = asyncio.create_task(read())
        await asyncio.wait_for(committing.wait(), WAIT_S)
        await asyncio.sleep(0.05)
        assert b'finish_reason":"stop' not in received
        assert b"[DONE]" not in received
        assert bool(received) is stream
        commit.set()
        await asyncio.wait_for(reading, WAIT_S)
        assert b'finish_reason":"stop' in received
