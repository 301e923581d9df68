"""openai-python, unmodified but for its base_url: what it returns, what it raises, and what it retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from manent.adapters.inference.script import Script
from manent.domain.errors import EngineUnavailable
from tests.support.dialogue import ANSWER, dialogue_engine
from tests.support.hooks import Held
from tests.support.http import Running, running_server

MESSAGES: Any = [{"role": "user", "content": "hello"}]


async def test_a_chat() -> None:
    """The client's own types, validated strictly, take the answer."""
    async with running_server() as running, running.openai() as client:
        completion = await client.chat.completions.create(model="default", messages=MESSAGES)
        ChatCompletion.model_validate(completion.model_dump(), strict=True)
        assert completion.choices[0].message.content == "Hello, this is scripted."
        assert completion.usage is not None
        assert completion.usage.total_tokens == 10
        assert completion.usage.prompt_tokens_details is not None
        assert completion.usage.prompt_tokens_details.cached_tokens == 0
        assert completion._request_id is not None
        assert completion._request_id.startswith("req_")


async def test_a_stream_with_usage() -> None:
    """Chunks validate strictly; the last one has the usage and no choices."""
    async with running_server() as running, running.openai() as client:
        stream = await client.chat.completions.create(
            model="default", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == "Hello, this is scripted."
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 6
        assert chunks[-1].choices == []


async def test_the_stream_helper() -> None:
    """``.stream()`` accumulates the events into the completion that ``create`` returns."""
    async with running_server() as running, running.openai() as client:
        async with client.chat.completions.stream(model="default", messages=MESSAGES) as stream:
            events = [event.type async for event in stream]
            final = await stream.get_final_completion()
        assert "content.delta" in events
        assert final.choices[0].message.content == "Hello, this is scripted."
        assert final.choices[0].finish_reason == "stop"
        assert final.system_fingerprint is not None


async def test_the_raw_response_has_the_headers() -> None:
    """The session and the request are named in headers, as users of ``with_raw_response`` read them."""
    async with running_server() as running, running.openai() as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="default", messages=MESSAGES, extra_body={"session_id": "s"}, extra_headers={"X-Request-ID": "mine"}
        )
        assert raw.headers["x-session-id"] == "s"
        assert raw.headers["x-request-id"] == raw.request_id == "mine"
        assert int(raw.headers["openai-processing-ms"]) >= 1
        assert raw.parse().to_dict()["session_id"] == "s"


async def test_models() -> None:
    """``models.list`` and ``models.retrieve`` return the registry."""
    async with running_server() as running, running.openai() as client:
        assert [model.id async for model in client.models.list()] == ["scripted"]
        assert (await client.models.retrieve("default")).id == "scripted"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("none/such")


async def _conflict(running: Running) -> None:
    await running.chat(session_id="s")


@pytest.mark.parametrize(
    ("members", "error_class", "code", "param"),
    [
        ({"model": "none"}, openai.NotFoundError, "model_not_found", "model"),
        ({"messages": []}, openai.BadRequestError, "invalid_value", "messages"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "unknown_parameter", "temprature"),
        ({"n": 9}, openai.BadRequestError, "invalid_value", "n"),
        ({"max_tokens": 100_000}, openai.BadRequestError, "context_length_exceeded", "messages"),
        (
            {
                "extra_body": {"session_id": "s", "session_mode": "strict"},
                "messages": [*MESSAGES, {"role": "assistant", "content": "no"}, *MESSAGES],
            },
            openai.ConflictError,
            "history_conflict",
            "messages[1]",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_refusals_raise_the_right_class(
    members: dict[str, Any],
    error_class: type[openai.APIStatusError],
    code: str,
    param: str,
    stream: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    """Class, code, parameter, type and request id are where users of the client look for them."""
    async with running_server() as running, running.openai() as client:
        await running.chat(session_id="s")
        with pytest.raises(error_class) as raised:
            await client.chat.completions.create(
                **{"model": "default", "messages": MESSAGES, "stream": stream, **members}
            )
        assert (raised.value.code, raised.value.param) == (code, param)
        assert raised.value.type in {"invalid_request_error", "conflict_error"}
        assert (raised.value.request_id or "").startswith("req_")


async def test_a_failure_in_the_middle_of_a_stream_raises() -> None:
    """A stream that cannot finish raises an APIError; it never looks like a short success."""
    script = Script(failure=EngineUnavailable("the runner crashed"), fails_at=2)
    async with running_server(script) as running, running.openai() as client:
        stream = await client.chat.completions.create(model="default", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="the runner crashed") as raised:
            async for _ in stream:
                pass
        assert raised.value.code == "runner_crashed"


async def test_conflicts_are_not_retried_and_crashes_are() -> None:
    """The client's own retries obey the headers: one attempt for a conflict, and a new one for a crashed runner."""
    attempts = 0

    def script(_: Any) -> Script:
        nonlocal attempts
        attempts += 1
        return Script() if attempts > 1 else Script(failure=EngineUnavailable("crashed", retry_after_s=0.01))

    async with running_server() as running:
        running.engine.script = script
        async with AsyncOpenAI(base_url=f"{running.address}/v1", api_key="any", max_retries=2) as client:
            completion = await client.chat.completions.create(model="default", messages=MESSAGES)
            assert completion.choices[0].message.content
            assert attempts == 2
            await client.post("/sessions", body={"session_id": "s"}, cast_to=object)
            requests_before = len(running.engine.requests)
            with pytest.raises(openai.ConflictError):
                await client.post("/sessions", body={"session_id": "s"}, cast_to=object)
            assert len(running.engine.requests) == requests_before


async def test_clients_with_defaults_of_their_own_get_through() -> None:
    """What LangChain and others send along as defaults asks for nothing, and is accepted."""
    async with running_server() as running, running.openai() as client:
        completion = await client.chat.completions.create(
            model="default",
            messages=[
                {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
                {"role": "user", "content": "hi", "name": "ann"},
                {"role": "assistant", "content": "hello", "refusal": None, "tool_calls": []},
                *MESSAGES,
            ],
            n=1,
            frequency_penalty=0,
            presence_penalty=0,
            logprobs=False,
            logit_bias={},
            response_format={"type": "text"},
            tools=[],
            service_tier="auto",
            parallel_tool_calls=True,
            safety_identifier="x",
            prompt_cache_key="y",
            seed=-5,
            stop=None,
        )
        assert completion.service_tier == "default"


class Weather(BaseModel):
    """What an answer is parsed into."""

    city: str
    degrees: int


class GetWeather(BaseModel):
    """The weather in a city."""

    location: str


# openai-python's own types say that nothing was parsed, and pydantic warns of what is there when they are dumped.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("sent", [lambda message: message, lambda message: message.model_dump()], ids=["as is", "dump"])
async def test_what_was_parsed_is_sent_back(sent: Callable[[Any], Any]) -> None:
    """The next turn holds the message that ``parse`` gave, with what the client made of content and arguments."""
    async with running_server(engine=dialogue_engine()) as running, running.openai() as client:
        chat = client.chat.completions
        parsed = await chat.parse(model="default", messages=MESSAGES, response_format=Weather)
        message = parsed.choices[0].message
        assert message.parsed == Weather(city="Paris", degrees=21)
        again = await chat.create(model="default", messages=[*MESSAGES, sent(message), *MESSAGES])
        assert again.choices[0].message.content == "Hello, this is scripted."

        tools = [openai.pydantic_function_tool(GetWeather)]
        calling = (await chat.parse(model="default", messages=MESSAGES, tools=tools)).choices[0].message
        assert calling.tool_calls is not None
        assert calling.tool_calls[0].function.parsed_arguments == GetWeather(location="Paris")
        result: Any = {"role": "tool", "tool_call_id": calling.tool_calls[0].id, "content": "21 degrees"}
        answer = await chat.create(model="default", messages=[*MESSAGES, sent(calling), result], tools=tools)
        assert answer.choices[0].message.content == ANSWER


async def test_the_clients_own_timeout() -> None:
    """A client that gives up raises its own class; what it asked for was accepted, and its retry may yet have it."""
    held = Held(1)
    async with running_server(Script(before_delta=held)) as running, running.openai() as client:
        with pytest.raises(openai.APITimeoutError):
            await client.with_options(timeout=1.0).chat.completions.create(model="default", messages=MESSAGES)
        assert (await running.payload_of("CompletionRequested"))["model_id"] == "scripted"
        held.released.set()
