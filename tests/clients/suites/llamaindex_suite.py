"""LlamaIndex's class for OpenAI-compatible servers; it brings the older major of openai-python."""

from __future__ import annotations

from typing import Any

import pytest
from addresses import ANSWER, QUESTION, REAL, SCRIPTED, STARTER
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

MESSAGES = [ChatMessage(role="user", content=QUESTION)]


class City(BaseModel):
    """What an answer is parsed into."""

    capital: bool


def get_weather(location: str) -> str:
    """The weather in a city."""
    return f"21 degrees ({location})"


def model(name: str = STARTER, *, address: str = REAL, **more: Any) -> OpenAILike:
    """The class as its documentation sets it up."""
    given = {"api_key": "any", "is_chat_model": True, "is_function_calling_model": True, "context_window": 2048}
    return OpenAILike(
        model=name, api_base=f"{address}/v1", **{**given, "temperature": 0, "max_tokens": 6, "max_retries": 0, **more}
    )


@pytest.mark.representative
def test_a_streamed_chat() -> None:
    """What is streamed is what is answered whole."""
    whole = model().chat(MESSAGES)
    pieces = list(model().stream_chat(MESSAGES))
    assert pieces[-1].message.content == whole.message.content
    assert "".join(piece.delta or "" for piece in pieces) == whole.message.content


@pytest.mark.representative
def test_a_call() -> None:
    """A model that calls by itself."""
    tool = FunctionTool.from_defaults(get_weather)
    asking = model("caller", max_tokens=40)
    (call,) = asking.get_tool_calls_from_response(asking.chat_with_tools([tool], user_msg=QUESTION))
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"location": "Paris"})


async def test_an_agent() -> None:
    """Call, result, answer, in LlamaIndex's own loop, which streams."""
    llm = model("default", address=SCRIPTED, max_tokens=100)
    agent = FunctionAgent(tools=[get_weather], llm=llm)
    assert str(await agent.run(QUESTION)) == ANSWER.replace("21 degrees", "21 degrees (Paris)")


def test_an_answer_in_a_form() -> None:
    """A pydantic model, by the format that the server enforces."""
    llm = model(should_use_structured_outputs=True, max_tokens=20).as_structured_llm(City)
    assert isinstance(llm.chat(MESSAGES).raw, City)


async def test_a_stream_in_async() -> None:
    """The asynchronous client says the same."""
    pieces = [piece async for piece in await model().astream_chat(MESSAGES)]
    assert pieces[-1].message.content == model().chat(MESSAGES).message.content
