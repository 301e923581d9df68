"""openai-python whose connection is cut: it resumes behind the last event, and its own retries find their answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.script import Script
from tests.support.hooks import Held
from tests.support.http import WAIT_S, running_server
from tests.support.lossy_proxy import LossyProxy, lossy_proxy

PIECES = ("One", ", two", ", three", ", four", ", five", ".")
ASKED: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "Count."}]}

HEAD_BYTES = 1000
"""The head of an answer and its first event are within so many."""


async def slowly(_delta: int) -> None:
    """Let the writer send each delta before the next one."""
    for _ in range(5):
        await asyncio.sleep(0)


def sdk(proxy: LossyProxy, **options: Any) -> AsyncOpenAI:
    """The official client behind the proxy."""
    return AsyncOpenAI(base_url=f"{proxy.address}/v1", api_key="any", timeout=WAIT_S, **options)


class Client:
    """An application of openai-python that reads a stream's lines, and so has the ids of its events."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self.client = client
        self.completion_id = self.last_id = self.text = ""

    async def read(self, response: Any) -> None:
        """Take what the connection brings; an event that is cut is none."""
        pending_id = pending = ""
        async for line in response.iter_lines():
            if line.startswith("id: "):
                pending_id = line.removeprefix("id: ")
            elif line.startswith("data: "):
                pending = line.removeprefix("data: ")
            elif not line and pending:
                self.take(pending_id, pending)
                pending = ""

    def take(self, event_id: str, data: str) -> None:
        """One whole event."""
        chunk = ChatCompletionChunk.model_validate_json(data)
        self.completion_id, self.last_id = chunk.id, event_id
        self.text += "".join(choice.delta.content or "" for choice in chunk.choices)

    async def ask(self) -> None:
        """Begin."""
        chat = self.client.chat.completions.with_streaming_response
        async with chat.create(**ASKED, stream=True, extra_body={"background": True, "store": True}) as response:
            await self.read(response)

    async def resume(self) -> AsyncStream[ChatCompletionChunk]:
        """Go on behind the last event, as a stream of the SDK's own chunks."""
        return await self.client.get(
            f"/chat/completions/{self.completion_id}/stream",
            cast_to=ChatCompletionChunk,
            stream=True,
            stream_cls=AsyncStream[ChatCompletionChunk],
            options={"headers": {"Last-Event-ID": self.last_id}},
        )


async def test_a_cut_stream_is_resumed_with_the_sdks_own_means() -> None:
    """Wherever the bytes stop: ids from ``with_streaming_response``, the rest from ``client.get`` as chunks."""
    async with (
        running_server(Script(pieces=PIECES, before_delta=slowly)) as running,
        lossy_proxy(running.port) as proxy,
    ):
        whole_bytes = len((await running.chat(stream=True)).content)
        for cut_bytes in range(HEAD_BYTES, whole_bytes, 211):
            proxy.cuts.append(cut_bytes)
            async with sdk(proxy, max_retries=0) as client:
                app = Client(client)
                with pytest.raises(Exception, match=r"(?i)peer|closed|connection|chunk"):
                    await app.ask()
                chunks = [chunk async for chunk in await app.resume()]
            text = app.text + "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
            assert text == "".join(PIECES), cut_bytes
            assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("lost", ["stream", "answer", "wait"])
async def test_the_sdks_own_retries_find_what_the_first_attempt_generates(lost: str) -> None:
    """A connection that is lost before the first byte of a stream, with the answer, or while it is awaited."""
    held, stream = Held(1), lost == "stream"
    script = Script(pieces=PIECES, before_delta=held)
    async with (
        running_server(script, limits=HttpLimits(retry_grace_s=WAIT_S)) as running,
        lossy_proxy(running.port) as proxy,
        sdk(proxy, max_retries=1) as client,
    ):
        proxy.cuts.extend([] if lost == "wait" else [0])
        body = {"background": stream}
        asking = asyncio.create_task(client.chat.completions.create(**ASKED, stream=stream, extra_body=body))
        await held.reached.wait()
        if lost == "wait":
            proxy.break_off()
        held.released.set()
        answer: Any = await asking
        if stream:
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in answer])
        else:
            text = answer.choices[0].message.content
        assert text == "".join(PIECES)
        counts = [request.lower().partition(b"x-stainless-retry-count: ")[2][:1] for request in proxy.requests]
        assert counts == [b"0", b"1"]
        assert len(running.engine.requests) == 1


async def test_a_timeout_of_the_sdk_is_a_retry_like_any_other() -> None:
    """An SDK that gives up and asks again gets what its first attempt went on to generate."""
    held = Held(1)
    limits = HttpLimits(retry_grace_s=WAIT_S)
    async with (
        running_server(Script(pieces=PIECES, before_delta=held), limits=limits) as running,
        AsyncOpenAI(base_url=f"{running.address}/v1", api_key="any", timeout=0.5, max_retries=3) as client,
    ):
        asking = asyncio.create_task(client.chat.completions.create(**ASKED))
        await held.reached.wait()
        await asyncio.sleep(0.7)
        held.released.set()
        completion = await asking
        assert completion.choices[0].message.content == "".join(PIECES)
        assert len(running.engine.requests) == 1


async def test_keep_alives_of_a_long_prefill_disturb_no_reader() -> None:
    """Comments before the first token and between tokens, behind ids: the SDK sees chunks and nothing else."""

    async def silent(_delta: int) -> None:
        await asyncio.sleep(0.03)

    script = Script(pieces=PIECES, before_delta=silent)
    async with running_server(script, limits=HttpLimits(ping_interval_s=0.005)) as running, running.openai() as client:
        raw = (await running.chat(stream=True)).text
        assert raw.count(": ping") > len(PIECES)
        stream = await client.chat.completions.create(**ASKED, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "".join(PIECES)
        async with client.chat.completions.stream(**ASKED) as helper:
            final = await helper.get_final_completion()
        assert final.choices[0].message.content == "".join(PIECES)
