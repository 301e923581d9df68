"""anthropic-python, unmodified but for its base_url: what it returns, what it raises, and what it goes on with."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from typing import Any

import anthropic as sdk
import pytest
from anthropic import Anthropic
from pydantic import BaseModel

from manent.adapters.inference.script import Script, Thought
from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from manent.domain.access import Scope
from manent.domain.embedding import ModelType
from manent.domain.errors import EngineUnavailable
from manent.domain.messages import ToolCall
from tests.support.access import door, guarded_server
from tests.support.anthropic import USER, anthropic
from tests.support.dialogue import ANSWER, dialogue_engine
from tests.support.http import running_server
from tests.support.pictures import picture

ASKED: Any = {"model": "default", "max_tokens": 64, "messages": [USER]}
SCHEMA: Any = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
TOOL: Any = {"name": "weather", "description": "The weather of a city.", "input_schema": SCHEMA}


async def test_the_stream_helper_adds_up_to_the_whole_message() -> None:
    """Thinking, text and a call; the helper's snapshot is what ``create`` returns."""
    call = ToolCall(id="call_1", name="weather", arguments='{"location": "Paris"}')
    script = Script(pieces=(Thought("Hm"), Thought("m."), "Let me", " look.", call))
    async with running_server(script) as running, anthropic(running) as client:
        whole = await client.messages.create(**ASKED)
        async with client.messages.stream(**ASKED) as stream:
            kinds = {event.type async for event in stream}
            final = await stream.get_final_message()
        assert {"text", "thinking", "signature", "input_json", "message_stop"} <= kinds
        assert [block.type for block in final.content] == ["thinking", "text", "tool_use"]
        assert final.content[2].to_dict() == whole.content[2].to_dict()
        assert (final.stop_reason, final.usage) == (whole.stop_reason, whole.usage)
        assert (await client.messages.count_tokens(model="default", messages=[USER])).input_tokens == 4
        raw = await client.messages.with_raw_response.create(**ASKED)
        assert (raw.request_id or "").startswith("req_")


async def test_what_agents_send_along_gets_through() -> None:
    """Betas, caching, tools of Anthropic's own, hints about the context: what asks for nothing is no obstacle."""
    sent: Any = {
        "betas": ["context-management-2025-06-27", "one-that-nobody-knows"],
        "extra_query": {"beta": "true"},
        "extra_body": {"temperature": 1},
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        "metadata": {"user_id": '{"device_id":"x","session_id":"y"}'},
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "service_tier": "auto",
        "tools": [{**TOOL, "eager_input_streaming": True}, {"type": "web_search_20250305", "name": "web_search"}],
    }
    async with running_server() as running, anthropic(running) as client:
        answer = await client.beta.messages.create(**ASKED, **sent)
        assert answer.content[0].to_dict()["text"] == "Hello, this is scripted."
        assert running.engine.rendered[-1][0].text == "Be brief."


async def test_the_client_that_waits() -> None:
    """The synchronous client, in a thread."""
    async with running_server() as running:

        def converse() -> str:
            with Anthropic(base_url=running.address, api_key="any", max_retries=0) as client:
                assert [model.id for model in client.models.list()] == ["scripted"]
                assert client.models.retrieve("default").max_input_tokens == 4096
                with client.messages.stream(**ASKED) as stream:
                    return "".join(stream.text_stream)

        assert await asyncio.to_thread(converse) == "Hello, this is scripted."


@pytest.mark.parametrize("session", [{}, {"session_id": "s"}])
async def test_a_tool_is_called_and_its_result_sent_back(session: dict[str, str]) -> None:
    """The loop of every agent; in a session, what is sent back again is not recorded again."""
    async with running_server(engine=dialogue_engine()) as running, anthropic(running) as client:
        given: Any = {"model": "default", "max_tokens": 64, "tools": [TOOL], "extra_body": session}
        first = await client.messages.create(messages=[USER], **given)
        assert first.stop_reason == "tool_use"
        call = first.content[-1]
        assert call.type == "tool_use"
        assert call.input == {"location": "Paris"}
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}
        messages: Any = [USER, first.to_param(), {"role": "user", "content": [result]}]
        second = await client.messages.create(messages=messages, **given)
        assert [block.to_dict()["text"] for block in second.content] == [ANSWER]
        assert not await running.log("HistoryRevised")
        if session:
            assert len(await running.log("MessageAppended")) == 4


class Weather(BaseModel):
    """What an answer is parsed into."""

    city: str
    degrees: int


async def test_pydantic_models_are_parsed() -> None:
    """``messages.parse`` sends the model's schema, which is enforced, and returns the model."""
    script = Script(pieces=('{"city": ', '"Paris", ', '"degrees": 21}'))
    async with running_server(script) as running, anthropic(running) as client:
        parsed = await client.messages.parse(**ASKED, output_format=Weather)
        assert parsed.parsed_output == Weather(city="Paris", degrees=21)
        shape = running.engine.requests[-1].parameters.shape
        assert shape is not None
        assert shape.format is not None
        assert '"degrees"' in shape.format.definition


async def test_an_image_is_seen() -> None:
    """Base64 as the SDK sends it; a model that reads text alone says so."""
    sees = dataclasses.replace(SCRIPTED_CARD, model_id="sees", aliases=(), type=ModelType.VLM)
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture()).decode()}
    messages: Any = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    async with (
        running_server(engine=ScriptedEngine(cards=(SCRIPTED_CARD, sees))) as running,
        anthropic(running) as client,
    ):
        assert (await client.messages.create(model="sees", max_tokens=9, messages=messages)).content
        (shown,) = running.engine.rendered[-1]
        assert [image.data for image in shown.images] == [picture()]
        with pytest.raises(sdk.BadRequestError, match="reads text alone"):
            await client.messages.create(model="default", max_tokens=9, messages=messages)


async def test_a_session_goes_on_from_one_api_to_the_other() -> None:
    """What a chat began a message continues, and the other way round; each sees all that was said."""
    async with running_server() as running, anthropic(running) as client, running.openai() as openai:
        session: Any = {"extra_body": {"session_id": "s"}}
        await openai.chat.completions.create(model="default", messages=[USER], **session)
        second = await client.messages.create(**ASKED | {"messages": [{"role": "user", "content": "and?"}]}, **session)
        await openai.chat.completions.create(model="default", messages=[{"role": "user", "content": "so?"}], **session)
        said = [message.text for message in running.engine.rendered[-1]]
        answer = "Hello, this is scripted."
        assert said == ["hello", answer, "and?", answer, "so?"]
        history: Any = [USER, {"role": "assistant", "content": answer}, {"role": "user", "content": "and?"}]
        whole = [*history, second.to_param(), {"role": "user", "content": "so?"}, second.to_param(), USER]
        await client.messages.create(**ASKED | {"messages": whole}, **session)
        assert [message.text for message in running.engine.rendered[-1]] == [*said, answer, "hello"]
        assert not await running.log("HistoryRevised")


async def read_to_the_end(client: sdk.AsyncAnthropic, asked: dict[str, Any]) -> None:
    """Ask, and read the answer, which may be a stream."""
    answer = await client.messages.create(**asked)
    if asked.get("stream"):
        async for _ in answer:
            pass


async def test_errors_raise_the_classes_that_clients_catch() -> None:
    """Each with its type, Manent's code and the request's id; also in a stream, whose status was told before."""
    crash = Script(failure=EngineUnavailable("the runner crashed"), fails_at=1)
    async with running_server(crash, limits_per_subject="requests_per_hour=4") as running, anthropic(running) as client:
        raising: list[tuple[type[sdk.APIStatusError], dict[str, Any], str, str]] = [
            (sdk.BadRequestError, {"max_tokens": 0}, "invalid_request_error", "invalid_value"),
            (sdk.NotFoundError, {"model": "none"}, "not_found_error", "model_not_found"),
            (sdk.ServiceUnavailableError, {}, "overloaded_error", "runner_crashed"),
            (sdk.APIStatusError, {"stream": True}, "overloaded_error", "runner_crashed"),
            (sdk.RateLimitError, {}, "rate_limit_error", "rate_limit_exceeded"),
        ]
        for kind, members, name, code in raising:
            with pytest.raises(kind) as raised:
                await read_to_the_end(client, {**ASKED, **members})
            assert (raised.value.type, raised.value.error_code) == (name, code)
            assert (raised.value.request_id or "").startswith("req_")


async def test_a_key_is_asked_for_in_either_header() -> None:
    """``x-api-key`` and ``Authorization: Bearer`` both do; none, or one without the scope, raises."""
    at = door()
    secret = (await at.key("ann")).secret.text
    reads = (await at.key("bob", Scope.MODELS_READ)).secret.text
    async with guarded_server(at) as running:
        for credential in ({"api_key": secret}, {"api_key": None, "auth_token": secret}):
            async with anthropic(running, **credential) as client:
                assert (await client.messages.create(**ASKED)).content
        for key, kind in (("mnt_" + "0" * 64, sdk.AuthenticationError), (reads, sdk.PermissionDeniedError)):
            async with anthropic(running, api_key=key) as client:
                with pytest.raises(kind) as raised:
                    await client.messages.create(**ASKED)
                assert (
                    raised.value.type
                    == {401: "authentication_error", 403: "permission_error"}[raised.value.status_code]
                )
