"""POST /v1/messages as a client without an SDK sees it: shapes, order of events, errors, headers, what is recorded."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.admission import AdmissionLimits
from manent.adapters.inference.script import Script, Thought
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.errors import EngineBusy, EngineUnavailable
from manent.domain.messages import ToolCall
from tests.support.anthropic import PING, USER, check_error, events_of, message_of, post, told
from tests.support.hooks import Held
from tests.support.http import WAIT_S, running_server

CALL = ToolCall(id="call_1", name="weather", arguments='{"city": "Paris"}')
OTHER = ToolCall(id="call_2", name="weather", arguments="[1]")


@pytest.mark.parametrize(
    ("pieces", "members", "kinds", "stop_reason", "stop_sequence"),
    [
        (("Hello", ", there"), {}, ["text"], "end_turn", None),
        (("One two", " END three"), {"stop_sequences": ["x", "END"]}, ["text"], "stop_sequence", "END"),
        (("a", "b", "c"), {"max_tokens": 2}, ["text"], "max_tokens", None),
        (("a",) * 5000, {"max_tokens": 8000}, ["text"], "model_context_window_exceeded", None),
        ((Thought("Hm"), Thought("m."), "So."), {}, ["thinking", "text"], "end_turn", None),
        ((Thought("Hm."), CALL, OTHER), {}, ["thinking", "tool_use", "tool_use"], "tool_use", None),
        (("Let me see.", CALL, " Done."), {}, ["text", "tool_use", "text"], "tool_use", None),
        (("",), {}, [], "end_turn", None),
    ],
)
async def test_a_message_is_the_same_whole_and_streamed(
    pieces: tuple[Any, ...], members: dict[str, Any], kinds: list[str], stop_reason: str, stop_sequence: str | None
) -> None:
    """Blocks, reason and usage; read strictly with the official types, in the order that its clients insist on."""
    async with running_server(Script(pieces=pieces)) as running:
        whole = message_of(await post(running, **members))
        streamed = told(events_of(await post(running, stream=True, **members)))
        assert [block["type"] for block in whole["content"]] == kinds
        assert (whole["stop_reason"], whole["stop_sequence"]) == (stop_reason, stop_sequence)
        for own in (whole, streamed):
            assert own.pop("id").startswith("msg_")
            for block in own["content"]:
                block.pop("signature", None)
        assert streamed == whole


async def test_thinking_may_be_left_out() -> None:
    """``display: omitted`` has the blocks and their signatures without the words."""
    async with running_server(Script(pieces=(Thought("Hm."), "So."))) as running:
        asked: dict[str, Any] = {"thinking": {"type": "adaptive", "display": "omitted"}}
        whole = message_of(await post(running, **asked))
        streamed = told(events_of(await post(running, stream=True, **asked)))
        for own in (whole, streamed):
            thinking, text = own["content"]
            assert (thinking["thinking"], text["text"]) == ("", "So.")
            assert thinking["signature"] == own["id"]


async def test_arguments_that_are_no_object_become_one() -> None:
    """An input is an object, of whole characters; what the model wrote instead is its one member."""
    written = {"[1]": [1], "no JSON": "no JSON", '{"a": NaN}': '{"a": NaN}'}
    inputs = {text: {"arguments": said} for text, said in written.items()}
    inputs['{"a": "\\ud83d \\ud83d\\ude00"}'] = {"a": "\ufffd \N{GRINNING FACE}"}
    for arguments, expected in inputs.items():
        async with running_server(Script(pieces=(replace(OTHER, arguments=arguments),))) as running:
            for own in (message_of(await post(running)), told(events_of(await post(running, stream=True)))):
                (block,) = own["content"]
                assert block["input"] == expected


@pytest.mark.timeout(20)
async def test_silence_is_told_by_pings() -> None:
    """Before the first event and between events; nothing else is sent meanwhile."""
    held = Held(1)
    limits = HttpLimits(ping_interval_s=0.02)
    async with running_server(Script(before_delta=held), limits=limits) as running:
        streaming = asyncio.create_task(post(running, stream=True))
        async with asyncio.timeout(WAIT_S):
            await held.reached.wait()
        await asyncio.sleep(0.1)
        held.released.set()
        answer = await streaming
        assert answer.text.count(PING) >= 2
        assert ": ping\n" not in answer.text.replace(PING, "")
        assert told(events_of(answer))["stop_reason"] == "end_turn"


async def test_a_late_refusal_is_told_in_the_stream() -> None:
    """What refuses a request whose stream was opened to keep it alive: pings, and the error as the only event."""
    held = Held(1)
    engine = ScriptedEngine(Script(before_delta=held), limits=AdmissionLimits(running_max=1, wait_max_s=0.05))
    async with running_server(engine=engine, limits=HttpLimits(ping_interval_s=0.01)) as running:
        first = asyncio.create_task(post(running, stream=True))
        async with asyncio.timeout(WAIT_S):
            await held.reached.wait()
        late = await post(running, stream=True)
        assert late.text.startswith(PING)
        (event,) = events_of(late)
        assert (event["type"], event["error"]["details"]["error_code"]) == ("error", "engine_busy")
        held.released.set()
        told(events_of(await first))


async def test_a_failure_in_the_middle_of_a_stream_is_told() -> None:
    """The last event is the error, in the envelope of all errors; the log has the failure."""
    async with running_server(Script(failure=EngineUnavailable("the runner crashed"), fails_at=2)) as running:
        answer = await post(running, stream=True)
        *_, last = events_of(answer)
        assert last == {
            "type": "error",
            "error": {
                "type": "overloaded_error",
                "message": "the runner crashed",
                "details": {"error_code": "runner_crashed", "param": None},
            },
            "request_id": answer.headers["request-id"],
        }
        assert (await running.payload_of("CompletionFailed"))["code"] == "runner_crashed"


async def test_errors_are_told_in_anthropics_words() -> None:
    """Whoever refuses: the body's reader, the domain, the engine, the router, the size of the body."""
    async with running_server(limits=HttpLimits(body_bytes_max=2000)) as running:
        check_error(await post(running, max_tokens="x"), 400, "invalid_request_error", "invalid_type")
        check_error(await post(running, model="none"), 404, "not_found_error", "model_not_found")
        check_error(await post(running, system="x" * 3000), 413, "request_too_large", "request_too_large")
        unheard = await running.http.post("/v1/messages", content=b"{}", headers={"content-type": "text/plain"})
        check_error(unheard, 415, "invalid_request_error", "unsupported_media_type")
        wrong_page = {"origin": "https://evil.example"}
        check_error(await post(running, headers=wrong_page), 403, "permission_error", "origin_not_allowed")
        check_error(await running.http.get("/v1/messages"), 405, "invalid_request_error", "method_not_allowed")
        check_error(await running.http.get("/api/v1/messages/x"), 404, "not_found_error", "unknown_url")
        batches = check_error(
            await running.http.get("/v1/messages/batches"), 404, "not_found_error", "unsupported_endpoint"
        )
        assert "/v1/messages/batches" in batches["error"]["message"]
        used_key = {"idempotency-key": "k"}
        assert (await post(running, headers=used_key)).status_code == 200
        again = await post(running, headers=used_key, max_tokens=1)
        check_error(again, 409, "invalid_request_error", "idempotency_conflict")
        assert again.headers["x-should-retry"] == "false"
        running.engine.script = Script(failure=EngineBusy("all places are taken"))
        busy = await post(running)
        check_error(busy, 503, "overloaded_error", "engine_busy")
        assert busy.headers["retry-after"] == "2"
        elsewhere = await running.http.get("/v1/sessions/none")
        assert set(elsewhere.json()) == {"error"}
        assert "request-id" not in elsewhere.headers


async def test_limits_are_told_in_anthropics_headers() -> None:
    """What is left, and when all is there again; a refusal has them as well."""
    async with running_server(limits_per_subject="requests_per_hour=1 tokens_per_hour=100000") as running:
        first = await post(running)
        assert first.headers["anthropic-ratelimit-requests-limit"] == "1"
        assert first.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert first.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        assert 0 < int(first.headers["anthropic-ratelimit-tokens-remaining"]) < 100_000
        refused = await post(running)
        check_error(refused, 429, "rate_limit_error", "rate_limit_exceeded")
        assert refused.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert int(refused.headers["retry-after"]) > 0


async def test_models_are_listed_in_the_shape_of_whoever_asks() -> None:
    """Anthropic's clients say who they are; OpenAI's list has no pages."""
    async with running_server() as running:
        own = await running.http.get("/v1/models", headers={"anthropic-version": "2023-06-01"})
        assert (own.json()["has_more"], own.json()["first_id"]) == (False, "scripted")
        assert (await running.http.get("/v1/models")).json()["object"] == "list"
        assert (await running.http.get("/v1/models?limit=5")).status_code == 400
        none = await running.http.get("/v1/models/none", headers={"anthropic-version": "2023-06-01"})
        check_error(none, 404, "not_found_error", "model_not_found")
        wrong = await running.http.get("/v1/models?after_id=none", headers={"anthropic-version": "2023-06-01"})
        check_error(wrong, 400, "invalid_request_error", "invalid_value")


async def test_a_retry_is_answered_with_what_the_first_attempt_generates() -> None:
    """By the SDK's own count, and by an idempotency key; one generation for both attempts."""
    async with running_server() as running:
        first = message_of(await post(running, headers={"x-stainless-retry-count": "0"}))
        assert message_of(await post(running, headers={"x-stainless-retry-count": "1"})) == first
        assert message_of(await post(running, headers={"x-stainless-retry-count": "0"}))["id"] != first["id"]
        keyed = message_of(await post(running, headers={"idempotency-key": "k"}))
        assert message_of(await post(running, headers={"idempotency-key": "k"})) == keyed
        assert len(running.engine.requests) == 3


async def test_it_is_recorded_as_any_other_completion() -> None:
    """Events, session, exact context and replay know it; its id is the message's; the stop sequence is told."""
    script = Script(pieces=("Hello", " END"))
    async with running_server(script) as running:
        asked: dict[str, Any] = {
            "session_id": "s",
            "system": "Be brief.",
            "stop_sequences": [" END"],
            "metadata": {"user_id": "u"},
        }
        answer = await post(running, **asked)
        message = message_of(answer)
        assert answer.headers["x-session-id"] == message["session_id"] == "s"
        generated = await running.payload_of("CompletionGenerated")
        assert (generated["message_id"], generated["stop_sequence"]) == (message["id"], " END")
        requested = await running.payload_of("CompletionRequested")
        assert (requested["user"], requested["parameters"]["stop"]) == ("u", [" END"])
        messages = (await running.http.get("/v1/sessions/s/messages")).json()["data"]
        assert [one["role"] for one in messages] == ["system", "user", "assistant"]
        assert messages[-1]["id"] == message["id"]
        context = await running.http.get(f"/v1/chat/completions/{generated['completion_id']}/context")
        assert context.status_code == 200, context.text
        assert "Be brief." in json.dumps(context.json())
        stored = await running.http.get(f"/v1/chat/completions/{generated['completion_id']}")
        assert stored.json()["choices"][0]["message"]["content"] == "Hello"


async def test_without_a_session_no_content_is_recorded() -> None:
    """As with chats: parameters and usage alone."""
    async with running_server() as running:
        message_of(await post(running))
        assert (await running.payload_of("CompletionGenerated"))["text"] is None
        recorded = b"".join(entry.payload or b"" for entry in await running.log())
        assert USER["content"].encode() not in recorded
