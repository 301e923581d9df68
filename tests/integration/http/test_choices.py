"""Choices, log probabilities, the queue and deadlines on the wire, as OpenAI's client reads them."""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from typing import Any

import pytest

from manent.adapters.http.wire_completions import ChatCompletion, ChatCompletionChunk
from manent.adapters.inference.admission import Admission, AdmissionLimits
from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from tests.support.hooks import Held
from tests.support.http import USER, WAIT_S, running_server, sse_events

SCRIPT = Script(pieces=("Hé", "llo", "!"))
ASK: dict[str, Any] = {"model": "default", "messages": [USER]}


async def test_choices_come_whole_with_their_log_probabilities() -> None:
    """One body: an index each, logprobs in OpenAI's shape, and usage of all choices."""
    async with running_server(SCRIPT) as running:
        answer = await running.chat(n=2, logprobs=True, top_logprobs=2)
        completion = ChatCompletion.model_validate_json(answer.content, strict=True)
        assert [choice.index for choice in completion.choices] == [0, 1]
        assert [choice.message.content for choice in completion.choices] == ["Héllo!", "llo!"]
        assert completion.usage.completion_tokens == 5
        first = json.loads(answer.content)["choices"][0]["logprobs"]
        assert first["refusal"] is None
        assert [set(entry) for entry in first["content"]] == [{"token", "logprob", "bytes", "top_logprobs"}] * 3
        assert first["content"][0]["bytes"] == list("Hé".encode())
        assert [entry["token"] for entry in first["content"]] == ["Hé", "llo", "!"]
        assert [set(top) for top in first["content"][0]["top_logprobs"]] == [{"token", "logprob", "bytes"}] * 2


async def test_without_logprobs_they_are_null() -> None:
    """As OpenAI sends it, in the body and in every chunk."""
    async with running_server(SCRIPT) as running:
        assert (await running.chat()).json()["choices"][0]["logprobs"] is None
        text = (await running.chat(stream=True)).text
        events = [json.loads(event) for event in sse_events(text)[:-1]]
        assert all(choice["logprobs"] is None for event in events for choice in event["choices"])


async def test_a_stream_of_choices_is_read_by_openais_client() -> None:
    """Each choice begins with its role, ends with its reason, and adds up to what the body says."""
    async with running_server(SCRIPT) as running, running.openai() as client:
        asked = {**ASK, "n": 3, "logprobs": True, "top_logprobs": 1, "seed": 1}
        whole = await client.chat.completions.create(**asked)
        texts: defaultdict[int, str] = defaultdict(str)
        told: defaultdict[int, list[Any]] = defaultdict(list)
        order: defaultdict[int, list[str]] = defaultdict(list)
        usage = None
        stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        async for chunk in stream:
            ChatCompletionChunk.model_validate(chunk.model_dump(exclude_unset=True))
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                told[choice.index] += (choice.logprobs.content or []) if choice.logprobs else []
                order[choice.index].append(choice.finish_reason or choice.delta.role or "")
        assert usage is not None
        assert whole.usage is not None
        assert usage.completion_tokens == whole.usage.completion_tokens
        for choice in whole.choices:
            assert texts[choice.index] == choice.message.content
            assert choice.logprobs is not None
            assert told[choice.index] == choice.logprobs.content
            assert (order[choice.index][0], order[choice.index][-1]) == ("assistant", "stop")
        assert len(whole.choices) == 3


async def test_a_repeated_request_gets_choices_and_log_probabilities_again() -> None:
    """The answer under an idempotency key is told from the record, whole."""
    async with running_server(SCRIPT) as running:
        body = {**ASK, "n": 2, "logprobs": True, "top_logprobs": 1}
        answers = [
            await running.http.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": "k"})
            for _ in range(2)
        ]
        assert answers[0].json() == answers[1].json()
        assert len(running.engine.requests) == 1


async def test_effective_parameters_are_recorded() -> None:
    """Every parameter reaches the engine, and stands in the log as it was used."""
    asked: dict[str, Any] = {
        "top_k": 40,
        "min_p": 0.05,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "repetition_penalty": 1.1,
        "logit_bias": {"17": -100, "18": 1.5},
        "stop_token_ids": [5],
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
    }
    async with running_server(SCRIPT) as running:
        await running.chat(**asked, priority="batch", timeout_s=30, max_completion_tokens=7, stop=["x"], seed=9)
        recorded = await running.payload_of("CompletionRequested")
        (engine_saw,) = running.engine.requests
        for name, value in {**asked, "max_tokens": 7, "stop": ["x"], "seed": 9}.items():
            assert recorded["parameters"][name] == value, name
        assert engine_saw.parameters.logit_bias == {17: -100.0, 18: 1.5}
        assert (recorded["priority"], recorded["timeout_s"]) == ("batch", 30.0)


async def test_a_request_that_names_nothing_has_neutral_parameters() -> None:
    """Defaults are filled in, and none of them changes anything."""
    async with running_server(SCRIPT) as running:
        await running.chat(top_k=-1)
        parameters = (await running.payload_of("CompletionRequested"))["parameters"]
        assert {name: parameters[name] for name in ("top_k", "min_p", "n", "logprobs", "logit_bias")} == {
            "top_k": 0,
            "min_p": 0.0,
            "n": 1,
            "logprobs": False,
            "logit_bias": {},
        }
        assert parameters["repetition_penalty"] == 1.0


@pytest.mark.parametrize("stream", [False, True])
async def test_the_queue_is_told_in_headers(*, stream: bool) -> None:
    """How many were ahead, and how long it took; who is too many gets 503 with a time to come back."""
    held = Held(0)
    engine = ScriptedEngine(Script(pieces=("a",), before_delta=held))
    engine.admission["scripted"] = Admission("scripted", AdmissionLimits(running_max=1, in_flight_max=3))
    async with running_server(engine=engine) as running, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(running.chat(stream=stream))
        async with asyncio.timeout(WAIT_S):
            await held.reached.wait()
        others = []
        for number in (1, 2):
            others.append(tasks.create_task(running.chat(stream=stream)))
            async with asyncio.timeout(WAIT_S):
                while engine.admission["scripted"].waiting < number:  # noqa: ASYNC110 (the queue sends no event)
                    await asyncio.sleep(0.005)
        refused = await running.chat(stream=stream)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_busy")
        assert int(refused.headers["retry-after"]) >= 1
        await asyncio.sleep(0.02)
        held.released.set()
        headers = [(await task).headers for task in (first, *others)]
        assert [header["x-queue-position"] for header in headers] == ["0", "0", "1"]
        assert int(headers[0]["x-queue-wait-ms"]) <= int(headers[1]["x-queue-wait-ms"])
        assert int(headers[2]["x-queue-wait-ms"]) >= 20


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_is_a_504_that_is_not_retried(*, stream: bool) -> None:
    """By status where nothing was sent yet, in the stream where it was; OpenAI's client does not try again."""
    async with running_server(Script(pieces=("a", "b"), before_delta=Held(1))) as running:
        answer = await running.chat(stream=stream, timeout_s=0.05)
        if stream:
            *_, last = sse_events(answer.text)
            error = json.loads(last)["error"]
        else:
            error = answer.json()["error"]
            assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
        assert (error["code"], error["param"]) == ("deadline_exceeded", "timeout_s")
        assert (await running.payload_of("CompletionFailed"))["code"] == "deadline_exceeded"


async def test_n_in_a_session_is_refused_by_name() -> None:
    """A session goes on with one answer; which of several that would be is nobody's to guess."""
    async with running_server(SCRIPT) as running:
        answer = await running.chat(n=2, session_id="s")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")
        assert (await running.chat(n=1, session_id="s")).status_code == 200


async def test_an_infinite_number_is_no_number() -> None:
    """JSON has none; what Python's would read as one is refused."""
    async with running_server(SCRIPT) as running:
        body = json.dumps({**ASK, "frequency_penalty": math.inf})
        answer = await running.http.post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400
