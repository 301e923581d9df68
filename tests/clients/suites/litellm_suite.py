"""LiteLLM, as a library: its route for OpenAI-compatible servers."""

from __future__ import annotations

import json
from typing import Any

import litellm
import pytest
from addresses import QUESTION, REAL, STARTER
from pydantic import BaseModel

MESSAGES = [{"role": "user", "content": QUESTION}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    },
}


class City(BaseModel):
    """What an answer is parsed into."""

    capital: bool


def asked(**more: Any) -> dict[str, Any]:
    """A request as users of LiteLLM write it."""
    given = {"model": f"hosted_vllm/{STARTER}", "api_base": f"{REAL}/v1", "api_key": "any", "messages": MESSAGES}
    return {**given, "temperature": 0, "max_tokens": 6, "num_retries": 0, **more}


@pytest.mark.representative
def test_a_streamed_chat() -> None:
    """What is streamed is what is answered whole, with the usage behind it."""
    whole = litellm.completion(**asked())
    chunks = list(litellm.completion(**asked(stream=True, stream_options={"include_usage": True})))
    built = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    assert built.choices[0].message.content == whole.choices[0].message.content
    assert built.choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert built.usage.completion_tokens == whole.usage.completion_tokens == 6


@pytest.mark.representative
@pytest.mark.parametrize("provider", ["hosted_vllm", "openai", "custom_openai"])
def test_a_call(provider: str) -> None:
    """A model that calls by itself, by each of the names under which LiteLLM knows such servers."""
    completion = litellm.completion(**asked(model=f"{provider}/caller", tools=[WEATHER], max_tokens=40))
    (call,) = completion.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"location": "Paris"})
    more = [*MESSAGES, completion.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "21"}]
    answer = litellm.completion(**asked(model=f"{provider}/caller", messages=more, max_tokens=40))
    assert answer.choices[0].message.content


def test_its_route_for_anthropic() -> None:
    """A call, its result, and the answer to that, streamed; an error of its classes."""
    given = {"model": "anthropic/caller", "api_base": REAL, "max_tokens": 40, "tools": [WEATHER]}
    completion = litellm.completion(**asked(**given))
    (call,) = completion.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"location": "Paris"})
    more = [*MESSAGES, completion.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "21"}]
    chunks = list(litellm.completion(**asked(**given, messages=more, tool_choice="none", stream=True)))
    assert litellm.stream_chunk_builder(chunks, messages=more).choices[0].message.content
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**asked(model="anthropic/none", api_base=REAL))


async def test_an_answer_in_a_form() -> None:
    """A pydantic model as the format, asynchronously."""
    completion = await litellm.acompletion(**asked(response_format=City, max_tokens=20))
    assert isinstance(City.model_validate_json(completion.choices[0].message.content), City)


def test_parameters_that_litellm_passes_on() -> None:
    """The ones it knows for OpenAI, and a session by ``extra_body``."""
    more = {"seed": 1, "top_p": 0.9, "stop": ["zzz"], "user": "ada", "extra_body": {"session_id": "litellm"}}
    completion = litellm.completion(**asked(**more, presence_penalty=0.1, n=1, logprobs=True, top_logprobs=2))
    assert completion.session_id == "litellm"
    assert len(completion.choices[0].logprobs.content) == 6


def test_errors_are_of_its_classes() -> None:
    """Applications fall back by them."""
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**asked(model="hosted_vllm/none"))
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**asked(messages=[{"role": "user", "content": "word " * 9000}]))


def test_embeddings() -> None:
    """Vectors, by the same route."""
    answer = litellm.embedding("hosted_vllm/all-minilm-l6-v2", ["one", "two"], api_base=f"{REAL}/v1", api_key="any")
    assert [len(row["embedding"]) for row in answer.data] == [384, 384]
