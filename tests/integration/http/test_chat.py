"""Chat completions over a real socket: shapes, sessions, conflicts, failures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manent.adapters.http.wire_completions import ChatCompletion
from manent.adapters.http.wire_responses import ErrorAnswer
from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from manent.domain.errors import (
    DomainError,
    EngineBusy,
    EngineUnavailable,
    GenerationFailed,
    ModelLoadError,
)
from tests.support.http import USER, WAIT_S, running_server

PREFIXES = ["/v1", "/api/v1"]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_chat_is_answered_in_openais_shape(prefix: str) -> None:
    """Every member is there, with exact usage, and nothing that the description does not know."""
    async with running_server() as running:
        answer = await running.chat(f"{prefix}/chat/completions")
        assert answer.status_code == 200
        completion = ChatCompletion.model_validate_json(answer.content, strict=True)
        body = answer.json()
        assert body["id"].startswith("chatcmpl-")
        assert body["object"] == "chat.completion"
        assert isinstance(body["created"], int)
        assert body["model"] == "scripted"
        assert body["choices"] == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello, this is scripted.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]
        assert body["usage"] == {
            "prompt_tokens": 4,
            "completion_tokens": 6,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
        assert completion.system_fingerprint.startswith("fp_")
        assert body["session_id"] is None
        assert "x-session-id" not in answer.headers


async def test_the_engine_gets_what_was_asked() -> None:
    """Sampling parameters reach the engine unchanged, and length is told where max_tokens ended it."""
    async with running_server() as running:
        answer = await running.chat(temperature=0.5, top_p=0.9, max_tokens=2, stop=["zzz"], seed=-1, user="u", n=1)
        assert answer.json()["choices"][0]["finish_reason"] == "length"
        parameters = running.engine.requests[0].parameters
        assert (parameters.temperature, parameters.top_p, parameters.max_tokens) == (0.5, 0.9, 2)
        assert (parameters.stop, parameters.seed) == (("zzz",), 2**63 - 1)
        assert (await running.payload_of("CompletionRequested"))["user"] == "u"


async def test_content_is_recorded_where_it_was_asked_for() -> None:
    """Without a session, only ``store`` has the text recorded; the answer is the same."""
    async with running_server() as running:
        assert (await running.chat()).json()["choices"][0]["message"]["content"]
        assert (await running.payload_of("CompletionGenerated"))["text"] is None
    async with running_server() as running:
        await running.chat(store=True, metadata={"k": "v"})
        assert (await running.payload_of("CompletionGenerated"))["text"] == "Hello, this is scripted."
        assert (await running.payload_of("CompletionRequested"))["metadata"] == {"k": "v"}


async def test_a_session_remembers() -> None:
    """The second turn's prompt holds the first; the session's id comes back in body and header."""
    async with running_server() as running:
        for text in ("one", "two"):
            answer = await running.chat(messages=[{"role": "user", "content": text}], session_id="s")
            assert answer.json()["session_id"] == answer.headers["x-session-id"] == "s"
        said = [(message.role.value, message.text) for message in running.engine.rendered[-1]]
        assert said == [("user", "one"), ("assistant", "Hello, this is scripted."), ("user", "two")]


async def test_headers_named_like_a_session_only_correlate() -> None:
    """Agents send session headers beside full histories: they are recorded, and the call stays stateless."""
    async with running_server() as running:
        for header in ("session_id", "x-session-id", "X-Correlation-ID"):
            answer = await running.http.post(
                "/v1/chat/completions", json={"model": "default", "messages": [USER]}, headers={header: f"c/{header}"}
            )
            assert answer.json()["session_id"] is None
        requested = await running.log("CompletionRequested")
        assert [entry.header.correlation_id for entry in requested] == [
            "c/session_id",
            "c/x-session-id",
            "c/X-Correlation-ID",
        ]
        assert all(entry.header.stream_id.startswith("completion-") for entry in requested)


@pytest.mark.parametrize(
    ("members", "status", "code", "param"),
    [
        ({"model": "gpt-4o"}, 404, "model_not_found", "model"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, 400, "invalid_value", "messages[0].role"),
        ({"temperature": "warm"}, 400, "invalid_type", "temperature"),
        ({"tools": [{"type": "function"}]}, 400, "missing_required_parameter", "tools[0].function"),
        ({"toools": []}, 400, "unknown_parameter", "toools"),
        ({"max_tokens": 5000}, 400, "context_length_exceeded", "messages"),
        ({"messages": [{"role": "user", "content": "w " * 5000}]}, 400, "context_length_exceeded", "messages"),
        ({"metadata": {str(i): "" for i in range(17)}}, 400, "invalid_value", "metadata"),
        ({"metadata": {"k" * 65: ""}}, 400, "invalid_value", "metadata"),
        ({"metadata": {"k": "v" * 513}}, 400, "invalid_value", "metadata"),
        ({"session_id": ""}, 400, "invalid_value", "session_id"),
        ({"session_id": "a/b"}, 400, "invalid_value", "session_id"),
        ({"session_id": "ü"}, 400, "invalid_value", "session_id"),
        ({"session_id": "a\n"}, 400, "invalid_value", "session_id"),
        ({"session_id": "a\x00"}, 400, "invalid_value", "session_id"),
        ({"session_id": "x" * 300}, 400, "invalid_value", "session_id"),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_refused_is_refused_before_anything_is_sent(
    members: dict[str, Any],
    status: int,
    code: str,
    param: str,
    stream: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    """A refusal is an HTTP error with its status, streamed or not, and leaves nothing in the log."""
    async with running_server() as running:
        answer = await running.chat(**members, stream=stream)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        error = ErrorAnswer.model_validate_json(answer.content).error
        assert (error.type, error.code, error.param) == ("invalid_request_error", code, param)
        assert answer.headers["x-request-id"].startswith("req_")
        assert await running.log() == []


async def test_a_context_that_is_too_long_is_told_with_the_numbers() -> None:
    """The client learns the window's length and what it asked for."""
    async with running_server() as running:
        message = (await running.chat(max_tokens=5000)).json()["error"]["message"]
        assert "4096" in message
        assert "5004" in message
        cut = await running.chat(messages=[USER, {"role": "user", "content": "w " * 3000}] * 2, truncation="auto")
        assert cut.status_code == 200


async def test_a_strict_session_refuses_another_history() -> None:
    """A departure is a 409 with its place that no SDK retries."""
    async with running_server() as running:
        await running.chat(session_id="s")
        resent = [{"role": "user", "content": "other"}, {"role": "assistant", "content": "x"}, USER]
        answer = await running.chat(session_id="s", session_mode="strict", messages=resent)
        assert answer.status_code == 409
        error = answer.json()["error"]
        assert (error["code"], error["type"], error["param"]) == ("history_conflict", "conflict_error", "messages[0]")
        assert answer.headers["x-should-retry"] == "false"


async def test_a_busy_session_is_a_conflict() -> None:
    """Whoever comes second waits for the bound, and is then told not to retry."""
    go_on = asyncio.Event()

    async def held(_: int) -> None:
        await go_on.wait()

    async with running_server(Script(before_delta=held)) as running:
        first = asyncio.create_task(running.chat(session_id="s"))
        async with asyncio.timeout(WAIT_S):
            while not running.engine.requests:  # noqa: ASYNC110 (the engine sends no event)
                await asyncio.sleep(0.005)
        second = await running.chat(session_id="s")
        assert (second.status_code, second.json()["error"]["code"]) == (409, "session_busy")
        assert second.headers["x-should-retry"] == "false"
        go_on.set()
        assert (await first).status_code == 200


@pytest.mark.parametrize(
    ("failure", "status", "code", "retry_after"),
    [
        (EngineBusy("full"), 503, "engine_busy", "2"),
        (EngineUnavailable("gone"), 503, "runner_crashed", "1"),
        (ModelLoadError("broken"), 503, "model_load_failed", None),
        (GenerationFailed("nan"), 500, "generation_failed", None),
    ],
)
async def test_a_failure_of_the_engine_has_its_status(
    failure: DomainError, status: int, code: str, retry_after: str | None
) -> None:
    """An engine that fails is told with a status, a code and when to come back, and the log has the failure."""
    async with running_server(Script(failure=failure, fails_at=2)) as running:
        answer = await running.chat()
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.json()["error"]["type"] == "server_error"
        assert answer.headers.get("retry-after") == retry_after
        assert (await running.payload_of("CompletionFailed"))["code"] == code


async def test_a_defect_is_a_500_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody expected is told with the request's id; the traceback is in the log and nowhere else."""

    class Defective(ScriptedEngine):
        def models(self) -> Any:
            raise ZeroDivisionError("secret")

    async with running_server(engine=Defective(cards=(SCRIPTED_CARD,))) as running:
        answer = await running.http.get("/v1/models", headers={"x-request-id": "mine"})
        assert answer.status_code == 500
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("internal_error", "server_error")
        assert "mine" in error["message"]
        assert "secret" not in answer.text
        assert "ZeroDivisionError: secret" in caplog.text


async def test_a_shutdown_is_worth_a_retry() -> None:
    """Completions that a shutdown cancels, and requests that come after, are 503 with Retry-After."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def held(_: int) -> None:
        reached.set()
        await never.wait()

    async with running_server(Script(before_delta=held)) as running:
        first = asyncio.create_task(running.chat())
        await asyncio.wait_for(reached.wait(), WAIT_S)
        await running.use_cases.live.drain(finish_s=0.0, close_s=1.0)
        for answer in (await first, await running.chat()):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
            assert answer.headers["retry-after"] == "5"
