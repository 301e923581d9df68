"""openai-python, unmodified, over responses and conversations: its helpers, iterators and errors."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import openai
import pytest
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from manent.adapters.inference.script import Script, Thought
from manent.domain.messages import ToolCall
from tests.support.http import WAIT_S, running_server

TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
ASKS = Script(pieces=(Thought("Paris."), ToolCall(id="call_1", name="weather", arguments='{"city": "Paris"}')))


class Answer(BaseModel):
    """What the model is to answer with."""

    city: str
    degrees: int


async def test_the_stream_helper_sees_the_whole_answer() -> None:
    """``responses.stream`` accumulates what ``create`` returns, reasoning and calls included."""
    async with running_server(ASKS) as running, running.openai() as client:
        async with client.responses.stream(model="default", input="How is Paris?", tools=[TOOL]) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert kinds[-1] == "response.completed"
        assert [item.type for item in final.output] == ["reasoning", "function_call"]
        call = final.output[1]
        assert isinstance(call, ResponseFunctionToolCall)
        assert call.arguments == '{"city": "Paris"}'
        again = await client.responses.retrieve(final.id)
        told = [item["id"] for item in again.to_dict()["output"]]  # type: ignore[attr-defined]  # a dict of the wire
        assert told == [item["id"] for item in final.to_dict()["output"]]  # type: ignore[attr-defined]  # a dict of the wire
        assert again.usage == final.usage


async def test_pydantic_models_are_parsed() -> None:
    """``responses.parse`` sends the model's schema, and returns the model."""
    script = Script(pieces=('{"city": ', '"Paris", ', '"degrees": 21}'))
    async with running_server(script) as running, running.openai() as client:
        parsed = await client.responses.parse(model="default", input="How is Paris?", text_format=Answer)
        assert parsed.output_parsed == Answer(city="Paris", degrees=21)
        shape = running.engine.requests[-1].parameters.shape
        assert shape is not None
        assert shape.format is not None
        assert '"degrees"' in shape.format.definition
        async with client.responses.stream(model="default", input="And now?", text_format=Answer) as stream:
            assert (await stream.get_final_response()).output_parsed == Answer(city="Paris", degrees=21)


async def test_a_function_is_called_and_its_result_sent_back() -> None:
    """The loop of every agent: call, result, answer; by the chain, and by sending everything back."""
    async with running_server(ASKS) as running, running.openai() as client:
        first = await client.responses.create(model="default", input="How is Paris?", tools=[TOOL])
        call = next(item for item in first.output if item.type == "function_call")
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}
        running.engine.script = Script(pieces=("It is ", "warm."))
        second = await client.responses.create(
            model="default", input=[result], tools=[TOOL], previous_response_id=first.id
        )
        assert second.output_text == "It is warm."
        chained = [message.text for message in running.engine.rendered[-1]]
        everything: Any = [{"role": "user", "content": "How is Paris?"}, *first.output, result]
        third = await client.responses.create(model="default", input=everything, tools=[TOOL], store=False)
        assert third.output_text == "It is warm."
        assert [message.text for message in running.engine.rendered[-1]] == chained


async def test_chains_forks_and_conversations() -> None:
    """What came before is there by its id, each time the right past."""
    async with running_server() as running, running.openai() as client:
        one = await client.responses.create(model="default", input="one")
        two = await client.responses.create(model="default", input="two", previous_response_id=one.id)
        fork = await client.responses.create(model="default", input="other", previous_response_id=one.id)
        assert two.previous_response_id == fork.previous_response_id == one.id
        assert [m.text for m in running.engine.rendered[-1]] == ["one", "Hello, this is scripted.", "other"]
        talk = await client.conversations.create(metadata={"about": "x"}, items=[{"role": "user", "content": "first"}])
        told = await client.responses.create(model="default", input="second", conversation=talk.id)
        assert told.conversation is not None
        assert told.conversation.id == talk.id
        await client.conversations.items.create(talk.id, items=[{"role": "user", "content": "third"}])
        listed = [item async for item in client.conversations.items.list(talk.id, order="asc", limit=1)]
        assert [item.type for item in listed] == ["message"] * 4
        backwards = [item async for item in client.conversations.items.list(talk.id, limit=3)]
        assert backwards == listed[::-1]
        found = await client.conversations.items.retrieve(listed[0].id or "", conversation_id=talk.id)
        assert found == listed[0]
        left = await client.conversations.items.delete(listed[0].id or "", conversation_id=talk.id)
        assert left.id == talk.id
        assert (await client.conversations.update(talk.id, metadata={"about": "y"})).metadata == {"about": "y"}
        assert (await client.conversations.delete(talk.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.conversations.retrieve(talk.id)
        orders: list[Any] = ["asc", "desc"]
        inputs = [
            [item.id async for item in client.responses.input_items.list(two.id, limit=limit, order=order)]
            for limit in (1, 2, 3, 100)
            for order in orders
        ]
        assert [len(set(ids)) for ids in inputs] == [3] * 8
        assert inputs[0] == inputs[1][::-1] == inputs[2] == inputs[3][::-1]


async def test_a_background_stream_is_resumed_at_every_number() -> None:
    """Whatever was seen before the connection broke, the rest comes, while it runs and afterwards."""
    go_on, reached = asyncio.Event(), asyncio.Event()

    async def held(number: int) -> None:
        if number == 4:
            reached.set()
            await go_on.wait()

    async with running_server(Script(before_delta=held)) as running, running.openai() as client:
        begun = await client.responses.create(model="default", input="x", background=True)
        assert begun.status == "queued"
        await reached.wait()
        live = [asyncio.create_task(_numbers(client, begun.id, starting_after=number)) for number in range(8)]
        await asyncio.sleep(0.05)
        go_on.set()
        counts = await asyncio.gather(*live)
        last = counts[0][-1]
        for number, seen in enumerate(counts):
            assert seen == list(range(number + 1, last + 1))
        for number in range(last + 1):
            assert await _numbers(client, begun.id, starting_after=number) == list(range(number + 1, last + 1))
        for after in (0, 2, 5, last - 1):
            async with client.responses.stream(response_id=begun.id, starting_after=after) as again:
                assert (await again.get_final_response()).output_text == "Hello, this is scripted."
        done = await client.responses.retrieve(begun.id)
        assert (done.status, done.output_text) == ("completed", "Hello, this is scripted.")
        assert (await client.responses.cancel(begun.id)).status == "completed"


async def _numbers(client: openai.AsyncOpenAI, response_id: str, *, starting_after: int) -> list[int]:
    stream = await client.responses.retrieve(response_id, stream=True, starting_after=starting_after)
    return [event.sequence_number async for event in stream]


class CutOnce(httpx2.AsyncHTTPTransport):
    """A network that loses the first request once the server is at work on it."""

    def __init__(self, at_work: asyncio.Event, go_on: asyncio.Event) -> None:
        super().__init__()
        self._at_work = at_work
        self._go_on = go_on
        self.attempts: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Lose the first one, and let the server go on when the second one is there."""
        self.attempts.append(request.headers["x-stainless-retry-count"])
        answering = asyncio.create_task(super().handle_async_request(request))
        await self._at_work.wait()
        if len(self.attempts) == 1:
            answering.cancel()
            raise httpx2.ReadError("the connection was cut", request=request)
        await asyncio.sleep(0.05)
        self._go_on.set()
        return await answering


async def test_the_client_tries_again_by_itself_and_finds_its_response() -> None:
    """A cut connection costs neither a second generation nor the first one."""
    go_on, at_work = asyncio.Event(), asyncio.Event()

    async def held(_: int) -> None:
        at_work.set()
        await go_on.wait()

    async with running_server(Script(before_delta=held)) as running:
        network = CutOnce(at_work, go_on)
        async with openai.AsyncOpenAI(
            base_url=f"{running.address}/v1",
            api_key="any",
            max_retries=2,
            http_client=httpx2.AsyncClient(transport=network, timeout=WAIT_S),
        ) as client:
            answer = await client.responses.create(model="default", input="x")
        assert (network.attempts, answer.output_text) == (["0", "1"], "Hello, this is scripted.")
        assert len(running.engine.requests) == 1
        requested = await running.payload_of("CompletionRequested")
        assert requested["completion_id"] == answer.id


async def test_errors_are_the_clients_own() -> None:
    """Statuses, codes and parameters arrive as openai-python's exceptions."""
    async with running_server() as running, running.openai() as client:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.responses.retrieve("resp_0")
        assert missing.value.code == "response_not_found"
        with pytest.raises(openai.BadRequestError) as wrong:
            await client.responses.create(model="default", input="x", previous_response_id="resp_0")
        assert (wrong.value.code, wrong.value.param) == ("previous_response_not_found", "previous_response_id")
        made = await client.responses.create(model="default", input="x")
        with pytest.raises(openai.BadRequestError):
            await client.responses.cancel(made.id)
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)
        assert (await client.responses.input_tokens.count(model="default", input="a b")).input_tokens == 5
