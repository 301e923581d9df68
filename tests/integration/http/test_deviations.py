"""What breaks clients, row by row, and that none of it is sent: the probe of OpenAI's clients turned round.

Each row is a deviation that openai-python, openai-node, the AI SDK, LangChain or the Agents SDK answered with an error,
a wrong answer or silence, as a look at the bytes of a stream.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParameters
from openai.types.completion_create_params import CompletionCreateParamsBase as TextParameters
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from manent.adapters.http.context import HttpLimits
from manent.adapters.http.parameter_table import Parameter
from manent.adapters.http.parameters import CHAT_PARAMETERS
from manent.adapters.http.response_parameters import INPUT_PARAMETERS, RESPONSE_PARAMETERS
from manent.adapters.http.wire_embeddings import EMBEDDING_PARAMETERS
from manent.adapters.http.wire_text import TEXT_PARAMETERS
from manent.adapters.inference.script import Script, Thought
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.errors import EngineUnavailable
from manent.domain.generation import GenerationRequest, ModelCard
from manent.domain.messages import ToolCall
from tests.support.http import USER, Running, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def slowly(_number: int) -> None:
    """Let the server send a comment before each word."""
    await asyncio.sleep(0.03)


CALLS = (ToolCall(id="call_1", name="f", arguments='{"a": 1}'), ToolCall(id="call_2", name="f", arguments="{}"))
SCRIPTS = {
    "plain": Script(pieces=("Hé", "llo")),
    "slow": Script(pieces=("Hé", "llo", " 🙂"), before_delta=slowly),
    "empty": Script(pieces=()),
    "everything": Script(pieces=(Thought("be"), Thought("cause"), "I look.", *CALLS)),
    "failing": Script(failure=EngineUnavailable("crashed"), fails_at=1),
}
CARDS = [ModelCard(model_id=name, context_length=4096, created_at_s=1) for name in SCRIPTS]
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
CHAT_TOOLS = [{"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}]
RESPONSE_TOOLS = [{"type": "function", "name": "f", "parameters": PARAMETERS}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncGenerator[Running, None]:
    """A server that soon fills a silence."""

    def script(request: GenerationRequest) -> Script:
        return SCRIPTS[request.model_id]

    limits = HttpLimits(ping_interval_s=0.01)
    async with running_server(engine=ScriptedEngine(script, cards=CARDS), limits=limits) as server:
        yield server


def chunks(raw: str) -> list[dict[str, Any]]:
    """The data of all events that are JSON."""
    return [json.loads(line.removeprefix("data: ")) for line in raw.split("\n") if line.startswith("data: {")]


def named(raw: str, kind: str) -> list[dict[str, Any]]:
    """The events of a response's stream whose type ends so."""
    return [event for event in chunks(raw) if event.get("type", "").endswith(kind)]


def fragments(raw: str) -> list[dict[str, Any]]:
    """The pieces of tool calls in the chunks of a chat."""
    choices = [choice for chunk in chunks(raw) for choice in chunk.get("choices", ())]
    return [call for choice in choices for call in choice["delta"].get("tool_calls") or ()]


def failed(raw: str) -> bool:
    """Whether the stream tells of an error in the one shape that all clients raise."""
    return any("error" in chunk and "choices" not in chunk for chunk in chunks(raw))


def has_reason(raw: str) -> bool:
    """Whether the stream of a chat says why it ended."""
    return any(choice["finish_reason"] for chunk in chunks(raw) for choice in chunk.get("choices", ()))


Deviates = Callable[[str], object]
BOTH: dict[str, Deviates] = {
    "a comment with a blank line behind it": lambda raw: re.search(r"(?m)^:[^\n]*\n\n", raw),
    "a retry field": lambda raw: re.search(r"(?m)^retry", raw),
    "an event without data": lambda raw: [
        block for block in raw.split("\n\n") if "event:" in block and "\ndata: " not in f"\n{block}"
    ],
    "empty data": lambda raw: re.search(r"(?m)^data: ?(\{\})?$", raw),
    "another line end": lambda raw: "\r" in raw,
    "no blank line at the end": lambda raw: not raw.endswith("\n\n"),
}
CHAT: dict[str, Deviates] = BOTH | {
    "a space behind [DONE]": lambda raw: "[DONE]" in raw and not raw.endswith("data: [DONE]\n\n"),
    "a named event": lambda raw: re.search(r"(?m)^event:", raw),
    "a cut that looks like an end": lambda raw: not (has_reason(raw) or failed(raw)),
    "neither [DONE] nor an error": lambda raw: not (raw.endswith("data: [DONE]\n\n") or failed(raw)),
    "a fragment of a call without an index": lambda raw: [call for call in fragments(raw) if "index" not in call],
    "the id or name of a call twice": lambda raw: (
        len([call for call in fragments(raw) if "id" in call]) != len({call["index"] for call in fragments(raw)})
    ),
    "a chunk without choices": lambda raw: [one for one in chunks(raw) if "choices" not in one and "error" not in one],
    "usage in more than one chunk": lambda raw: len([one for one in chunks(raw) if one.get("usage")]) > 1,
    "usage beside choices": lambda raw: [one for one in chunks(raw) if one.get("usage") and one["choices"]],
    "an empty reason": lambda raw: '"finish_reason":""' in raw,
    "no role first": lambda raw: chunks(raw)[0]["choices"][0]["delta"].get("role") != "assistant",
}


def done_items(raw: str) -> list[dict[str, Any]]:
    """The items that were done."""
    return [event["item"] for event in named(raw, "output_item.done")]


RESPONSES: dict[str, Deviates] = BOTH | {
    "no name, or another than the type": lambda raw: (
        re.findall(r"(?m)^event: (.*)$", raw) != [event["type"] for event in chunks(raw)]
    ),
    "response.created is not first": lambda raw: chunks(raw)[0]["type"] != "response.created",
    "an item that was not added": lambda raw: (
        [event["item"]["id"] for event in named(raw, "output_item.added")] != [item["id"] for item in done_items(raw)]
    ),
    "text without its part": lambda raw: (
        {event["item_id"] for event in named(raw, "text.delta")}
        - {event["item_id"] for event in named(raw, "content_part.added")}
    ),
    "another response's id": lambda raw: (
        len({event["response"]["id"] for event in chunks(raw) if "response" in event}) != 1
    ),
    "no end": lambda raw: (
        chunks(raw)[-1]["type"] not in {f"response.{end}" for end in ("completed", "incomplete", "failed")}
    ),
    "an end without what was said": lambda raw: chunks(raw)[-1]["response"]["output"] != done_items(raw),
    "an error without its words": lambda raw: [
        event for event in named(raw, "response.failed") if not event["response"]["error"]["message"]
    ],
    "a call's end without its name": lambda raw: [
        event for event in named(raw, "function_call_arguments.done") if not event["name"]
    ],
    "text without log probabilities": lambda raw: [
        event
        for event in (*named(raw, "output_text.delta"), *named(raw, "output_text.done"))
        if "logprobs" not in event
    ],
    "numbers with gaps": lambda raw: (
        [event["sequence_number"] for event in chunks(raw)] != list(range(len(chunks(raw))))
    ),
    "usage without its details": lambda raw: [
        usage
        for event in named(raw, "completed")
        for usage in [event["response"]["usage"]]
        if "cache_write_tokens" not in usage["input_tokens_details"]
        or "reasoning_tokens" not in usage["output_tokens_details"]
    ],
}


GOOD_CHAT = (
    'data: {"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}\n\n'
    'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f"}}]},'
    '"finish_reason":null}]}\n\n: ping\n'
    'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    'data: {"choices":[],"usage":{"total_tokens":1}}\n\ndata: [DONE]\n\n'
)
SPOILED = [
    (": ping\n", ": ping\n\n", "a comment with a blank line behind it"),
    (": ping\n", "retry: 5\n", "a retry field"),
    (": ping\n", "event: ping\n\n", "an event without data"),
    (": ping\n", "data: {}\n\n", "empty data"),
    (": ping\n", "\r\n", "another line end"),
    ("[DONE]\n\n", "[DONE]\n", "no blank line at the end"),
    ("[DONE]", "[DONE] ", "a space behind [DONE]"),
    (": ping\n", "event: x\n", "a named event"),
    ('"stop"', "null", "a cut that looks like an end"),
    ("data: [DONE]\n\n", "", "neither [DONE] nor an error"),
    ('{"index":0,"id"', '{"id"', "a fragment of a call without an index"),
    ('[{"index":0,"id":"c"', '[{"index":0,"id":"c"},{"index":0,"id":"c"', "the id or name of a call twice"),
    ('"choices":[],"usage"', '"usage"', "a chunk without choices"),
    (": ping\n", 'data: {"choices":[],"usage":{"total_tokens":1}}\n\n', "usage in more than one chunk"),
    ('[],"usage"', '[{"index":0,"delta":{},"finish_reason":null}],"usage"', "usage beside choices"),
    ('"stop"', '""', "an empty reason"),
    ('{"role":"assistant"}', "{}", "no role first"),
]


async def test_a_deviation_is_found_where_there_is_one() -> None:
    """Every row finds the one thing that it is about, and nothing in a good stream."""
    assert not [name for name, deviates in CHAT.items() if deviates(GOOD_CHAT)]
    assert {name for _, _, name in SPOILED} == set(CHAT)
    for good, bad, name in SPOILED:
        assert GOOD_CHAT.count(good) == 1, good
        assert CHAT[name](GOOD_CHAT.replace(good, bad)), name


async def raw_stream(running: Running, path: str, body: dict[str, Any]) -> str:
    """The bytes of a stream, as text."""
    answer = await running.http.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return answer.text


@pytest.mark.parametrize("model", SCRIPTS)
async def test_no_deviation_is_in_a_chat(running: Running, model: str) -> None:
    """With and without usage, ids, tools, a session; also where it fails in the middle."""
    body = {"model": model, "messages": [USER], "tools": CHAT_TOOLS}
    for more in ({}, {"stream_options": {"include_usage": True}}, {"max_tokens": 1}, {"session_id": model}):
        raw = await raw_stream(running, "/v1/chat/completions", {**body, **more})
        assert ": ping\n" in raw or model != "slow"
        for name, deviates in CHAT.items():
            assert not deviates(raw), f"{name}:\n{raw}"
        assert failed(raw) == (model == "failing")


@pytest.mark.parametrize("model", SCRIPTS)
async def test_no_deviation_is_in_a_response(running: Running, model: str) -> None:
    """Created, in the background, not stored, and told again."""
    body = {"model": model, "input": "hello", "tools": RESPONSE_TOOLS}
    for more in ({}, {"max_output_tokens": 1}, {"background": True}, {"store": False}):
        raw = await raw_stream(running, "/v1/responses", {**body, **more})
        again = raw
        if "store" not in more:
            response_id = chunks(raw)[0]["response"]["id"]
            again = (await running.http.get(f"/v1/responses/{response_id}?stream=true")).text
        assert [event["type"] for event in chunks(again)] == [event["type"] for event in chunks(raw)]
        for told in (raw, again):
            for name, deviates in RESPONSES.items():
                assert not deviates(told), f"{name}:\n{told}"


SPOILED_RESPONSES = [
    ("everything", r"\Aevent: [^\n]*\n", "", "no name, or another than the type"),
    ("everything", r"\A.*?\n\n", "", "response.created is not first"),
    ("everything", r"output_item\.added", "output_item.made", "an item that was not added"),
    ("everything", r"content_part\.added", "content_part.made", "text without its part"),
    ("everything", r'"id":"resp_', '"id":"resp_0', "another response's id"),
    ("everything", r"event: response\.completed.*", "", "no end"),
    ("everything", r'(response\.completed.*)"output":\[', r'\1"output":[{},', "an end without what was said"),
    ("failing", r"runner_crashed: crashed", "", "an error without its words"),
    ("everything", r'"name":"f","arguments"', '"name":"","arguments"', "a call's end without its name"),
    ("everything", r'("delta":"I look."),"logprobs":\[\]', r"\1", "text without log probabilities"),
    ("everything", r'"sequence_number":5', '"sequence_number":55', "numbers with gaps"),
    ("everything", r"cache_write_tokens", "written", "usage without its details"),
]


async def test_a_deviation_of_a_response_is_found_where_there_is_one(running: Running) -> None:
    """Every row finds the one thing that it is about, in a real stream with that one thing changed."""
    assert {case[-1] for case in SPOILED_RESPONSES} == set(RESPONSES) - set(BOTH)
    for model, good, bad, name in SPOILED_RESPONSES:
        raw = await raw_stream(running, "/v1/responses", {"model": model, "input": "hello", "tools": RESPONSE_TOOLS})
        count = 1 if "resp_" in good else 0
        spoiled = re.sub(good, bad, raw, count=count, flags=re.DOTALL)
        assert spoiled != raw, name
        assert RESPONSES[name](spoiled), name


async def test_the_client_reads_streams_with_comments_in_them(running: Running) -> None:
    """openai-python, by hand and with its helpers, over both APIs, where a comment stands between any two events."""
    async with running.openai() as client:
        by_hand = await client.chat.completions.create(
            model="slow", messages=[{"role": "user", "content": "x"}], stream=True
        )
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in by_hand]) == "Héllo 🙂"
        async with client.chat.completions.stream(model="slow", messages=[{"role": "user", "content": "x"}]) as chat:
            assert (await chat.get_final_completion()).choices[0].message.content == "Héllo 🙂"
        async with client.responses.stream(model="slow", input="x") as told:
            assert (await told.get_final_response()).output_text == "Héllo 🙂"
        begun = await client.responses.create(model="slow", input="x", background=True)
        browser = {"Accept": "text/event-stream"}
        with_ids = await client.responses.retrieve(begun.id, stream=True, extra_headers=browser)
        assert [event.type async for event in with_ids][-1] == "response.completed"
        with pytest.raises(openai.APIError, match="crashed"):
            async for _ in await client.chat.completions.create(
                model="failing", messages=[{"role": "user", "content": "x"}], stream=True
            ):
                pass
        failing = await client.responses.create(model="failing", input="x", stream=True)
        assert [event.type async for event in failing][-1] == "response.failed"


TABLES: dict[str, tuple[Any, Any]] = {
    "chat completions": (ChatParameters, CHAT_PARAMETERS),
    "completions": (TextParameters, TEXT_PARAMETERS),
    "responses": (ResponseCreateParamsBase, RESPONSE_PARAMETERS),
    "input tokens": (InputTokenCountParams, INPUT_PARAMETERS),
    "embeddings": (EmbeddingCreateParams, EMBEDDING_PARAMETERS),
}


@pytest.mark.parametrize("name", TABLES)
async def test_every_parameter_that_the_client_knows_has_a_row(name: str) -> None:
    """The tables say of each whether it is honored, accepted or refused."""
    known, table = TABLES[name]
    rows: list[Parameter] = list(table)
    assert set(known.__annotations__) <= {row.name for row in rows}
    assert all(row.says for row in rows)
