"""OpenAI's Agents SDK: its runner, over Chat Completions and over Responses."""

from __future__ import annotations

import pytest
from addresses import ANSWER, QUESTION, REAL, SCRIPTED, STARTER
from agents import (
    Agent,
    AsyncOpenAI,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
)
from pydantic import BaseModel

APIS = [OpenAIChatCompletionsModel, OpenAIResponsesModel]
over_both = pytest.mark.parametrize("api", APIS)


class City(BaseModel):
    """What an agent answers with."""

    capital: bool


@function_tool
def get_weather(location: str) -> str:
    """The weather in a city."""
    return "21 degrees"


def model(api: type[Model], name: str = STARTER, *, address: str = REAL) -> Model:
    """The SDK's model over one of the two APIs."""
    client = AsyncOpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
    return api(name, client)


def agent(asked: Model, *, max_tokens: int = 6, **more: object) -> Agent[None]:
    """An agent that says little."""
    settings = ModelSettings(temperature=0, max_tokens=max_tokens, include_usage=True)
    return Agent(name="ada", instructions="Be brief.", model=asked, model_settings=settings, **more)


@over_both
@pytest.mark.representative
async def test_a_streamed_answer(api: type[Model]) -> None:
    """What is streamed is what is answered whole."""
    # An answer that max_tokens cuts is an error to this SDK over Responses: the scripted model ends by itself.
    asked = agent(model(api) if api is OpenAIChatCompletionsModel else model(api, "default", address=SCRIPTED))
    whole = await Runner.run(asked, QUESTION)
    streamed = Runner.run_streamed(asked, QUESTION)
    async for _ in streamed.stream_events():
        pass
    assert streamed.final_output == whole.final_output
    assert streamed.context_wrapper.usage.output_tokens == whole.context_wrapper.usage.output_tokens > 0


@over_both
@pytest.mark.representative
async def test_a_loop_with_a_tool(api: type[Model]) -> None:
    """Call, result, answer: in the SDK's own loop, streamed and not."""
    asked = agent(model(api, "default", address=SCRIPTED), max_tokens=100, tools=[get_weather])
    assert (await Runner.run(asked, QUESTION)).final_output == ANSWER
    streamed = Runner.run_streamed(asked, QUESTION)
    async for _ in streamed.stream_events():
        pass
    assert streamed.final_output == ANSWER


@over_both
async def test_an_answer_in_a_form(api: type[Model]) -> None:
    """A pydantic model as the agent's output."""
    result = await Runner.run(agent(model(api), max_tokens=20, output_type=City), QUESTION)
    assert isinstance(result.final_output, City)


@over_both
async def test_a_handoff(api: type[Model]) -> None:
    """One agent gives over to another, by a function of the SDK's."""
    expert = agent(model(api), handoff_description="knows the weather")
    first = agent(model(api, "default", address=SCRIPTED), max_tokens=100, handoffs=[expert])
    result = await Runner.run(first, QUESTION)
    assert result.last_agent is expert
