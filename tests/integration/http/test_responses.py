"""Responses as the wire has them: every answer and every event judged by OpenAI's own types, over a matrix."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.admission import AdmissionLimits
from manent.adapters.inference.script import Script, Thought
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.errors import GenerationFailed
from manent.domain.messages import ToolCall
from tests.support.http import WAIT_S, Running, client, raw_connection, running_server
from tests.support.strict import check_order, strict_events, strict_items, strict_response, strict_tokens

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
CUSTOM = {"type": "custom", "name": "patch", "description": "Applies a patch."}
HOSTED = {"type": "web_search"}
CALL = ToolCall(id="call_1", name="f", arguments='{"a": 1}')
PATCH = ToolCall(id="call_2", name="patch", arguments='{"input": "*** Begin"}')
TALK = Script()
THINK = Script(pieces=(Thought("let me "), Thought("see"), "It", " is."))
CALLS = Script(pieces=("I look.", CALL, PATCH))
ODD = Script(pieces=(CALL, "after", Thought("hm"), "more"))
SILENT = Script(pieces=())
SCHEMA = {"type": "json_schema", "name": "o", "schema": {"type": "object", "properties": {}}, "strict": True}

MATRIX: list[tuple[str, Script, dict[str, Any]]] = [
    ("plain", TALK, {}),
    ("items", TALK, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}),
    ("instructions", TALK, {"instructions": "Be brief.", "metadata": {"a": "b"}, "user": "u"}),
    ("sampling", TALK, {"temperature": 0.5, "top_p": 0.5, "frequency_penalty": 1, "presence_penalty": 1, "seed": 3}),
    ("cut", TALK, {"max_output_tokens": 2}),
    ("cut thought", THINK, {"max_output_tokens": 1}),
    ("more than there is room for", TALK, {"max_output_tokens": 50_000}),
    ("logprobs", TALK, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
    (
        "reasoning",
        THINK,
        {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
    ),
    ("tools", CALLS, {"tools": [FUNCTION, CUSTOM, HOSTED], "tool_choice": "required", "parallel_tool_calls": False}),
    ("one tool", CALLS, {"tools": [FUNCTION, CUSTOM], "tool_choice": {"type": "function", "name": "f"}}),
    ("a custom tool", CALLS, {"tools": [FUNCTION, CUSTOM], "tool_choice": {"type": "custom", "name": "patch"}}),
    (
        "allowed tools",
        CALLS,
        {
            "tools": [FUNCTION, CUSTOM],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        },
    ),
    ("odd order", ODD, {"tools": [FUNCTION]}),
    ("nothing said", SILENT, {}),
    ("json", TALK, {"text": {"format": {"type": "json_object"}, "verbosity": "low"}}),
    ("schema", TALK, {"text": {"format": SCHEMA}}),
    ("truncation", TALK, {"truncation": "auto", "max_tool_calls": 3, "service_tier": "auto"}),
    ("hints", TALK, {"safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h"}),
    ("not stored", CALLS, {"store": False, "instructions": "Be brief.", "tools": [FUNCTION]}),
    ("session", TALK, {"session_id": "mine"}),
]


async def create(running: Running, **members: Any) -> Any:
    """Post a response with defaults that work."""
    return await running.http.post("/v1/responses", json={"model": "default", "input": "hello", **members})


@pytest.mark.parametrize(("script", "members"), [case[1:] for case in MATRIX], ids=[case[0] for case in MATRIX])
async def test_whole_streamed_and_read_again_are_the_same(script: Script, members: dict[str, Any]) -> None:
    """Every way of getting a response tells the same one, strictly typed; its stream can be told again."""
    async with running_server(script) as running:
        whole = await create(running, **members)
        assert whole.status_code == 200, whole.text
        strict_response(whole)
        streamed = await create(running, **members, stream=True)
        assert "id:" not in streamed.text
        events = strict_events(streamed.text)
        last = check_order(events)
        same = {"id", "output", "session_id", "created_at", "completed_at", "usage"}
        assert {k: v for k, v in last.items() if k not in same} == {
            k: v for k, v in whole.json().items() if k not in same
        }
        path = f"/v1/responses/{last['id']}"
        again = await running.http.get(path)
        if members.get("store") is False:
            assert (again.status_code, again.json()["error"]["code"]) == (404, "response_not_found")
            return
        strict_response(again)
        assert again.json() == last
        for after in range(-1, len(events)):
            query = {"stream": "true"} | ({} if after < 0 else {"starting_after": str(after)})
            rest = await running.http.get(path, params=query)
            assert strict_events(rest.text, first=after + 1) == events[after + 1 :]


async def test_everything_asked_for_is_told_back() -> None:
    """What the request said is in the response, also when it is read again."""
    asked = {
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "tools": [FUNCTION, CUSTOM, HOSTED],
        "tool_choice": "none",
        "max_output_tokens": 100,
        "reasoning": {"effort": "high", "summary": None},
        "text": {"format": {"type": "json_object"}, "verbosity": "high"},
        "user": "me",
    }
    async with running_server() as running:
        made = (await create(running, **asked)).json()
        read = (await running.http.get(f"/v1/responses/{made['id']}")).json()
        assert read == made
        for name, value in asked.items():
            if name != "tools":
                assert made[name] == value, name
        assert [tool["type"] for tool in made["tools"]] == ["function", "custom", "web_search"]
        shape = running.engine.requests[-1].parameters.shape
        assert shape is not None
        assert [(tool.name, tool.custom) for tool in shape.tools] == [("f", False), ("patch", True)]


async def test_instructions_are_of_one_request() -> None:
    """The model sees them before everything; the next response of the chain does not have them, nor has the session."""
    async with running_server() as running:
        first = (await create(running, instructions="Be brief.")).json()
        second = (await create(running, input="again", previous_response_id=first["id"])).json()
        seen = [[(message.role, message.text) for message in prompt] for prompt in list(running.engine.rendered)[-2:]]
        assert seen == [
            [("system", "Be brief."), ("user", "hello")],
            [("user", "hello"), ("assistant", "Hello, this is scripted."), ("user", "again")],
        ]
        assert (first["instructions"], second["instructions"]) == ("Be brief.", None)
        context = (await running.http.get(f"/v1/chat/completions/{first['id']}/context")).json()
        assert context["verdict"] == "matches"
        assert [message["role"] for message in context["messages"]] == ["system", "user"]
        items = strict_items(await running.http.get(f"/v1/responses/{second['id']}/input_items?order=asc"))
        assert [item["role"] for item in items] == ["user", "assistant", "user"]


async def test_a_chain_is_one_session_and_a_second_future_a_fork() -> None:
    """Going on from the last response goes on in its session; from an earlier one, it forks and shares the past."""
    async with running_server() as running:
        one = (await create(running, input="one")).json()
        two = (await create(running, input="two", previous_response_id=one["id"])).json()
        three = (await create(running, input="three", previous_response_id=two["id"])).json()
        assert one["session_id"] == two["session_id"] == three["session_id"]
        assert three["conversation"] is None
        other = (await create(running, input="other", previous_response_id=one["id"])).json()
        assert other["session_id"] != one["session_id"]
        assert [message.text for message in running.engine.rendered[-1]] == ["one", "Hello, this is scripted.", "other"]
        fork = (await running.http.get(f"/v1/sessions/{other['session_id']}")).json()
        assert fork["parent"]["session_id"] == one["session_id"]
        further = (await create(running, input="further", previous_response_id=other["id"])).json()
        assert further["session_id"] == other["session_id"]
        assert len(running.engine.rendered[-1]) == 5
        alone = await create(running, input="x", previous_response_id=two["id"], store=False)
        assert alone.json()["session_id"] is None
        assert [message.text for message in running.engine.rendered[-1]][::2] == ["one", "two", "x"]


async def test_futures_asked_for_at_once_are_forks_too() -> None:
    """However fast they come, none waits for another and none is refused."""
    async with running_server() as running:
        one = (await create(running)).json()
        answers = await asyncio.gather(*(create(running, previous_response_id=one["id"]) for _ in range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        assert len({answer.json()["session_id"] for answer in answers}) == 4


async def test_a_response_in_a_conversation_is_left_where_it_is() -> None:
    """Going on from it by its id does not write into the conversation."""
    async with running_server() as running:
        conversation = (await running.http.post("/v1/conversations", json={})).json()["id"]
        first = (await create(running, conversation={"id": conversation})).json()
        assert first["conversation"] == {"id": conversation}
        beside = (await create(running, previous_response_id=first["id"])).json()
        assert beside["session_id"] != conversation
        second = (await create(running, conversation=conversation, input="two")).json()
        assert second["session_id"] == conversation
        assert len(running.engine.rendered[-1]) == 3


async def test_calls_go_round() -> None:
    """A function's and a custom tool's results answer the calls, by chain, by items and by references."""
    async with running_server(CALLS) as running:
        tools = [FUNCTION, CUSTOM]
        first = (await create(running, tools=tools)).json()
        message, call, patch = first["output"]
        assert (call["type"], call["arguments"]) == ("function_call", '{"a": 1}')
        assert (patch["type"], patch["input"]) == ("custom_tool_call", "*** Begin")
        results = [
            {"type": "function_call_output", "call_id": "call_1", "output": "2"},
            {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "ok"}]},
        ]
        pending = await create(running, previous_response_id=first["id"], input="no", tools=tools)
        assert (pending.status_code, pending.json()["error"]["param"]) == (400, "input")
        running.engine.script = TALK
        second = (await create(running, previous_response_id=first["id"], input=results, tools=tools)).json()
        by_chain = _said(running)
        assert by_chain[1:] == [
            ("assistant", "I look.", ["f", "patch"], None),
            ("tool", "2", [], "call_1"),
            ("tool", "ok", [], "call_2"),
        ]
        user = {"role": "user", "content": "hello"}
        await create(running, input=[user, message, call, patch, *results], store=False)
        assert _said(running) == by_chain
        references = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
        await create(running, input=[user, *references, *results], store=False)
        assert _said(running) == by_chain
        items = strict_items(await running.http.get(f"/v1/responses/{second['id']}/input_items?order=asc&limit=100"))
        assert [item["type"] for item in items] == [
            "message",
            "message",
            "function_call",
            "custom_tool_call",
            "function_call_output",
            "custom_tool_call_output",
        ]
        assert [item["id"] for item in items[1:4]] == [item["id"] for item in first["output"]]


def _said(running: Running) -> list[tuple[str, str, list[str], str | None]]:
    return [
        (message.role.value, message.text, [call.name for call in message.tool_calls], message.tool_call_id)
        for message in running.engine.rendered[-1]
    ]


async def test_reasoning_comes_back_where_it_belongs() -> None:
    """Reasoning, text and calls that are sent back as items are one message of the assistant's again."""
    async with running_server(THINK) as running:
        output = (await create(running, store=False)).json()["output"]
        assert [item["type"] for item in output] == ["reasoning", "message"]
        await create(
            running, store=False, input=[{"role": "user", "content": "a"}, *output, {"role": "user", "content": "b"}]
        )
        thought = running.engine.rendered[-1][1]
        assert (thought.reasoning, thought.text) == ("let me see", "It is.")


async def test_what_a_response_was_made_from_is_listed_in_pages() -> None:
    """Newest first unless asked otherwise; an unknown cursor is refused and never the first page again."""
    async with running_server() as running:
        asked = [{"role": "user", "content": str(number)} for number in range(5)]
        made = (await create(running, input=asked)).json()
        path = f"/v1/responses/{made['id']}/input_items"
        page = await running.http.get(path, params={"limit": 2})
        assert [item["content"][0]["text"] for item in strict_items(page)] == ["4", "3"]
        assert page.json()["has_more"] is True
        rest = await running.http.get(path, params={"after": page.json()["last_id"], "limit": 3})
        assert [item["content"][0]["text"] for item in strict_items(rest)] == ["2", "1", "0"]
        assert rest.json()["has_more"] is False
        wrong = await running.http.get(path, params={"after": "msg_0"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "after")


async def test_input_tokens_are_those_that_the_prompt_has() -> None:
    """The count is that of the response that is asked for next, with all that came before."""
    async with running_server() as running:
        first = (await create(running, instructions="a b c")).json()
        for members in ({"instructions": "a b c"}, {"previous_response_id": first["id"]}):
            body = {"model": "default", "input": "hello", **members}
            counted = strict_tokens(await running.http.post("/v1/responses/input_tokens", json=body))
            assert counted == (await create(running, **members)).json()["usage"]["input_tokens"]
        empty = await running.http.post("/v1/responses/input_tokens", json={"model": "default"})
        assert (empty.status_code, empty.json()["error"]["param"]) == (400, "input")
        assert len(await running.log("CompletionRequested")) == 3


REFUSALS: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"model": "gpt-4o"}, 404, "model_not_found", "model"),
    ({"input": 7}, 400, "invalid_type", "input"),
    ({"input": []}, 400, "invalid_value", "input"),
    ({"input": None}, 400, "invalid_value", "input"),
    ({"input": [{"role": "boss", "content": "x"}]}, 400, "invalid_value", "input[0].role"),
    ({"input": [{"type": "message", "content": "x"}]}, 400, "missing_required_parameter", "input[0].role"),
    ({"input": [{"type": "computer_call"}]}, 400, "unsupported_parameter", "input[0].type"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
        400,
        "unsupported_parameter",
        "input[0].content[0].type",
    ),
    ({"input": [{"type": "item_reference", "id": "msg_0"}]}, 400, "invalid_value", "input[0].id"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": "1"}]}, 400, "invalid_value", "input"),
    ({"input": "w " * 5000}, 400, "context_length_exceeded", "input"),
    ({"max_output_tokens": 0}, 400, "invalid_value", "max_output_tokens"),
    ({"messages": []}, 400, "unknown_parameter", "messages"),
    ({"prompt": {"id": "p"}}, 400, "unsupported_parameter", "prompt"),
    ({"service_tier": "flex"}, 400, "unsupported_parameter", "service_tier"),
    ({"include": ["everything"]}, 400, "invalid_value", "include[0]"),
    ({"tools": [{"type": "function"}]}, 400, "missing_required_parameter", "tools[0].name"),
    ({"tools": [{"type": ["function"]}]}, 400, "invalid_type", "tools[0].type"),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": []}]}},
        400,
        "invalid_value",
        "tool_choice.tools",
    ),
    ({"tools": [FUNCTION, FUNCTION]}, 400, "invalid_value", "tools"),
    ({"tools": [HOSTED], "tool_choice": {"type": "web_search"}}, 400, "unsupported_parameter", "tool_choice.type"),
    ({"tools": [HOSTED], "tool_choice": "required"}, 400, "unsupported_parameter", "tool_choice"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "g"}}, 400, "invalid_value", "tool_choice.name"),
    (
        {"text": {"format": {"type": "json_schema", "name": "n"}}},
        400,
        "missing_required_parameter",
        "text.format.schema",
    ),
    (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"$ref": "#"}}}},
        400,
        "invalid_value",
        "text.format.schema",
    ),
    ({"previous_response_id": "resp_0"}, 400, "previous_response_not_found", "previous_response_id"),
    ({"previous_response_id": "chatcmpl-1"}, 400, "previous_response_not_found", "previous_response_id"),
    ({"conversation": "conv_0"}, 404, "session_not_found", "conversation"),
    ({"conversation": "c", "previous_response_id": "resp_0"}, 400, "invalid_value", "previous_response_id"),
    ({"conversation": "c", "session_id": "d"}, 400, "invalid_value", "session_id"),
    ({"background": True, "store": False}, 400, "invalid_value", "background"),
    ({"session_id": "s", "store": False}, 400, "invalid_value", "store"),
    ({"stream_options": {}}, 400, "invalid_value", "stream_options"),
]


async def test_what_is_refused_is_refused_before_anything_is_sent() -> None:
    """A refusal is an HTTP error that names the parameter as responses do, streamed or not, and leaves no event."""
    async with running_server() as running:
        for members, status, code, param in REFUSALS:
            for stream in (False, True):
                if "stream_options" in members and stream:
                    continue
                answer = await create(running, **members, stream=stream)
                error = answer.json()["error"]
                assert (answer.status_code, error["code"], error["param"]) == (status, code, param), members
        assert await running.log() == []


async def test_another_ones_response_is_not_there() -> None:
    """To anyone else it is a 404, whatever is asked of it."""
    async with running_server() as running:
        made = (await create(running, background=True)).json()["id"]
        store = running.store
        stranger = client("eve", LOCAL_OPERATOR.tenant)
        async with running_server(principal=stranger, store=store) as hers:
            for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
                answer = await hers.http.request(method, f"/v1/responses/{made}{path}")
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "response_not_found")
            answer = await create(hers, previous_response_id=made)
            assert answer.json()["error"]["code"] == "previous_response_not_found"


async def test_a_deleted_response_is_gone_and_its_conversation_is_not() -> None:
    """The conversation stands; a chain whose every response was deleted goes with the last one."""
    async with running_server() as running:
        one = (await create(running)).json()
        two = (await create(running, previous_response_id=one["id"])).json()
        for made, left in ((two, 200), (one, 404)):
            deleted = await running.http.delete(f"/v1/responses/{made['id']}")
            assert deleted.json() == {"id": made["id"], "object": "response.deleted", "deleted": True}
            assert (await running.http.get(f"/v1/responses/{made['id']}")).status_code == 404
            assert (await running.http.delete(f"/v1/responses/{made['id']}")).status_code == 404
            assert (await create(running, previous_response_id=made["id"])).status_code == 400
            assert (await running.http.get(f"/v1/sessions/{one['session_id']}")).status_code == left
        kept = (await create(running, session_id="kept")).json()
        await running.http.delete(f"/v1/responses/{kept['id']}")
        assert (await running.http.get("/v1/sessions/kept")).json()["message_count"] == 2
        assert len(await running.log("ResponseDeleted")) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_is_told_and_can_be_read_again(*, stream: bool) -> None:
    """Whole, it is an HTTP error; streamed, a response.failed at the end; the log tells the same later."""
    async with running_server(Script(failure=GenerationFailed("nan"), fails_at=2)) as running:
        answer = await create(running, stream=stream)
        if not stream:
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "generation_failed")
        made = (await running.payload_of("CompletionRequested"))["completion_id"]
        read = await running.http.get(f"/v1/responses/{made}")
        failed = strict_response(read)
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error.message == "generation_failed: nan"
        assert read.json()["output"][0]["content"][0]["text"] == "Hello,"
        assert read.json()["output"][0]["status"] == "incomplete"
        if stream:
            events = strict_events(answer.text)
            assert check_order(events) == read.json()
            again = await running.http.get(f"/v1/responses/{made}", params={"stream": "true"})
            assert strict_events(again.text) == events


async def test_a_late_refusal_is_told_in_the_stream() -> None:
    """What refuses a request whose stream was opened to keep it alive comes as an error that every client reads."""
    go_on = asyncio.Event()

    async def held(_: int) -> None:
        await go_on.wait()

    engine = ScriptedEngine(Script(before_delta=held), limits=AdmissionLimits(running_max=1, wait_max_s=0.2))
    limits = HttpLimits(ping_interval_s=0.01)
    async with running_server(engine=engine, limits=limits) as running, running.openai() as client:
        await create(running, background=True)
        answer = await create(running, stream=True)
        assert answer.text.startswith(": ping\n")
        (event,) = strict_events(answer.text)
        assert (event["type"], event["code"], event["error"]["code"]) == ("error", "engine_busy", "engine_busy")
        with pytest.raises(openai.APIError, match=r"scripted|busy|place|waited"):
            async for _ in await client.responses.create(model="default", input="x", stream=True):
                pass
        go_on.set()


async def test_a_background_response_goes_on_without_its_client() -> None:
    """It is answered with while it runs, followed from any number on, cancelled by its id, and read at any time."""
    go_on, reached = asyncio.Event(), asyncio.Event()

    async def held(number: int) -> None:
        if number == 3:
            reached.set()
            await go_on.wait()

    async with running_server(Script(before_delta=held)) as running:
        begun = await create(running, background=True)
        assert strict_response(begun).status == "queued"
        path = f"/v1/responses/{begun.json()['id']}"
        await asyncio.wait_for(reached.wait(), WAIT_S)
        assert strict_response(await running.http.get(path)).status == "in_progress"
        assert (await running.http.delete(path)).status_code == 409
        ahead = await create(running, previous_response_id=begun.json()["id"])
        assert "in progress" in ahead.json()["error"]["message"]
        async with raw_connection(running.port) as leaving:
            await leaving.send(f"GET {path}?stream=true HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            await leaving.read_until(b"output_text.delta")
            leaving.break_off()
        following = asyncio.create_task(running.http.get(path, params={"stream": "true", "starting_after": "4"}))
        await asyncio.sleep(0)
        go_on.set()
        rest = strict_events((await following).text, first=5)
        assert rest[-1]["type"] == "response.completed"
        whole = strict_events((await running.http.get(path, params={"stream": "true"})).text)
        assert rest == whole[5:]
        assert check_order(whole)["background"] is True
        assert (await running.http.post(f"{path}/cancel")).json()["status"] == "completed"


async def test_a_background_response_is_cancelled_by_its_id() -> None:
    """Only a background one can be, as at OpenAI; what it said until then can be read."""
    never, reached = asyncio.Event(), asyncio.Event()

    async def held(number: int) -> None:
        if number == 2:
            reached.set()
            await never.wait()

    async with running_server(Script(before_delta=held)) as running:
        begun = (await create(running, background=True, stream=False)).json()
        path = f"/v1/responses/{begun['id']}"
        await asyncio.wait_for(reached.wait(), WAIT_S)
        cancelled = await running.http.post(f"{path}/cancel")
        assert strict_response(cancelled).status == "cancelled"
        assert cancelled.json()["output"][0]["content"][0]["text"] == "Hello,"
        assert (await running.http.get(path)).json() == cancelled.json()
        assert (await running.payload_of("CompletionCancelled"))["reason"] == "response_cancelled"
        events = strict_events((await running.http.get(path, params={"stream": "true"})).text)
        assert events[-1]["response"] == cancelled.json()
        running.engine.script = TALK
        other = (await create(running)).json()["id"]
        refused = await running.http.post(f"/v1/responses/{other}/cancel")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")


async def test_after_a_crash_an_open_response_has_failed() -> None:
    """The next start closes what no server runs, and the response says so."""
    never = asyncio.Event()

    async def held(number: int) -> None:
        if number == 1:
            await never.wait()

    async with running_server(Script(before_delta=held)) as running:
        begun = (await create(running, background=True)).json()["id"]
        async with running_server(store=running.store) as restarted:
            assert (await restarted.http.get(f"/v1/responses/{begun}")).json()["status"] == "queued"
            following = asyncio.create_task(restarted.http.get(f"/v1/responses/{begun}?stream=true"))
            await asyncio.sleep(0.05)
            assert await restarted.use_cases.close_interrupted.run() == 1
            failed = strict_response(await restarted.http.get(f"/v1/responses/{begun}"))
            assert (failed.status, failed.output) == ("failed", [])
            assert failed.error is not None
            assert failed.error.message.startswith("interrupted: ")
            events = strict_events((await following).text)
            assert [event["type"] for event in events][-1] == "response.failed"


async def test_a_client_that_leaves_cancels_what_is_not_in_the_background() -> None:
    """A disconnect is recorded as such; a background stream goes on to its end."""
    go_on, reached = asyncio.Event(), asyncio.Event()

    async def held(number: int) -> None:
        if number == 2:
            reached.set()
            await go_on.wait()

    async with running_server(Script(before_delta=held)) as running:
        for background, outcome in ((False, "CompletionCancelled"), (True, "CompletionGenerated")):
            reached.clear()
            async with raw_connection(running.port) as leaving:
                body = json.dumps({"model": "default", "input": "x", "stream": True, "background": background})
                head = f"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
                await leaving.send(f"{head}content-type: application/json\r\n\r\n{body}".encode())
                await leaving.read_until(b"output_text.delta")
                await asyncio.wait_for(reached.wait(), WAIT_S)
                leaving.break_off()
            if background:
                await asyncio.sleep(0.05)
                go_on.set()
            await running.payload_of(outcome)


async def test_a_repetition_has_the_same_answer() -> None:
    """With an Idempotency-Key a response is generated once, and its stream is told again event by event."""
    async with running_server() as running:
        body = {"model": "default", "input": "hello", "stream": True}
        texts = [
            (await running.http.post("/v1/responses", json=body, headers={"Idempotency-Key": "k"})).text
            for _ in range(2)
        ]
        first, second = (strict_events(text) for text in texts)
        assert first == second
        assert len(running.engine.requests) == 1


async def test_an_auditor_goes_on_in_a_fork_of_its_own() -> None:
    """Who may read a response may have another future of it, and never writes into its session."""
    async with running_server(principal=client("ann", LOCAL_OPERATOR.tenant)) as hers:
        made = (await create(hers)).json()
        async with running_server(store=hers.store) as audits:
            on = (await create(audits, previous_response_id=made["id"])).json()
            assert on["session_id"] != made["session_id"]
            assert (await audits.http.delete(f"/v1/responses/{made['id']}")).status_code == 404
        assert (await hers.http.get(f"/v1/sessions/{made['session_id']}")).json()["message_count"] == 2


async def test_a_response_is_verified_like_any_completion() -> None:
    """What was generated deterministically is generated again, instructions included, and is the same."""
    async with running_server() as running:
        made = (await create(running, deterministic=True, instructions="Be brief.")).json()["id"]
        verified = await running.http.post(f"/v1/chat/completions/{made}/verify")
        assert verified.status_code == 200, verified.text
        assert [message.text for message in running.engine.rendered[-1]] == ["Be brief.", "hello"]
        assert verified.json()["verdict"] == "exact"


async def test_keys_of_the_wrong_kind_of_id_lead_nowhere() -> None:
    """Ids that no response can have never reach the store."""
    async with running_server() as running:
        chat = (await running.chat(store=True)).json()["id"]
        for odd in (chat, "resp_", "resp_%00", "resp_" + "x" * 100, "../x"):
            answer = await running.http.get(f"/v1/responses/{odd}")
            assert answer.status_code == 404
        wrong = await running.http.get("/v1/responses/resp_1", params={"starting_after": "1"})
        assert wrong.json()["error"]["param"] == "starting_after"


async def test_chats_and_responses_share_conversations() -> None:
    """What one API begins the other goes on with, under either name of the id."""
    async with running_server() as running:
        await running.chat(conversation="both")
        answer = (await create(running, conversation="both", input="two")).json()
        assert answer["session_id"] == "both"
        await running.chat(session_id="both", conversation={"id": "both"}, messages=[{"role": "user", "content": "3"}])
        assert len(running.engine.rendered[-1]) == 5
        refused = await running.chat(session_id="a", conversation="b")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "conversation")


async def test_the_effort_of_reasoning_reaches_the_model() -> None:
    """As reasoning_effort does in a chat; a word that nobody knows is refused."""
    async with running_server() as running:
        assert (await create(running, reasoning={"effort": "minimal"})).status_code == 200
        shape = running.engine.requests[-1].parameters.shape
        assert shape is not None
        assert shape.reasoning_effort == "minimal"
        refused = await create(running, reasoning={"effort": "heroic"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "reasoning.effort")
