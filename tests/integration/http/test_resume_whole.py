"""Whole answers whose client lost its connection: what its SDK gets when it tries again, and who finds what is left."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.script import Script
from manent.domain.errors import EngineUnavailable
from manent.domain.streams import NoStreamBuffer
from tests.support.hooks import Held
from tests.support.http import USER, WAIT_S
from tests.support.streamed import completion_of, events_of, id_of, resumed, said, told
from tests.support.world import World

SDK = {"X-Stainless-Retry-Count": "0"}
RETRY = {"X-Stainless-Retry-Count": "1"}


async def test_an_sdk_that_tries_again_gets_what_its_first_attempt_generates() -> None:
    """The same bytes by the same sender with a count above 0, and nothing else: while it runs, and after."""
    held = Held(1)
    world = World(("a", "b"), NoStreamBuffer(), before_delta=held)
    async with world.server() as running:
        body = {"model": "default", "messages": [USER]}

        async def ask(headers: dict[str, str], **members: Any) -> str:
            answer = await running.http.post("/v1/chat/completions", json={**body, **members}, headers=headers)
            assert answer.status_code == 200
            return str(answer.json()["id"])

        asking = asyncio.create_task(ask(SDK))
        await held.reached.wait()
        retrying = asyncio.create_task(ask(RETRY))
        await asyncio.sleep(0.05)
        held.released.set()
        first = await asking
        assert await retrying == first
        assert await ask({"X-Stainless-Retry-Count": "2"}) == first
        assert first not in {await ask(SDK), await ask({}), await ask(RETRY, user="ann")}
        assert len(world.engine.requests) == 4


@pytest.mark.parametrize("headers", [{}, SDK])
async def test_a_whole_answer_stays_in_memory_only_for_who_may_come_back(headers: dict[str, str]) -> None:
    """What is not recorded is gone once it was answered, unless the client's SDK tries again where it was not."""
    world = World(("a", "b"), NoStreamBuffer())
    async with world.server() as running:
        body = {"model": "default", "messages": [USER]}
        answer = await running.http.post("/v1/chat/completions", json=body, headers=headers)
        told_again = await resumed(running, answer.json()["id"])
        assert ("content_not_recorded" in told_again.text) is (not headers)
        assert (said(events_of(told_again.text)) == "ab") is bool(headers)


async def test_whoever_followed_a_whole_answer_goes_on_after_its_end() -> None:
    """A reader may lose the connection to what another one waits for, and comes back behind its last event."""
    held = Held(2)
    world = World(("a", "b", "c"), NoStreamBuffer(), before_delta=held)
    async with world.server() as running:
        answering = asyncio.create_task(running.chat())
        await held.reached.wait()
        (completion,) = running.use_cases.live
        following = asyncio.create_task(resumed(running, completion.completion_id))
        await asyncio.sleep(0.05)
        held.released.set()
        uncut = events_of((await following).text)
        assert (await answering).json()["choices"][0]["message"]["content"] == said(uncut) == "abc"
        rest = events_of((await resumed(running, completion.completion_id, id_of(uncut[1]))).text)
        assert told(uncut[:2] + rest) == told(uncut)


async def test_a_whole_answer_in_the_background_is_there_for_who_left() -> None:
    """It is generated to its end for somebody who comes back, so it is kept for them, recorded or not."""
    held = Held(1)
    world = World(("a", "b"), NoStreamBuffer(), before_delta=held)
    async with world.server() as running:
        answering = asyncio.create_task(running.chat(background=True))
        await held.reached.wait()
        (completion,) = running.use_cases.live
        answering.cancel()
        await asyncio.sleep(0.05)
        held.released.set()
        await completion.generated()
        assert said(events_of((await resumed(running, completion.completion_id)).text)) == "ab"


async def test_a_failed_attempt_is_not_repeated_from_memory() -> None:
    """A retry of what failed is generated anew."""
    world = World(("a",), NoStreamBuffer(), failure=EngineUnavailable("crashed"), fails_at=0)
    async with world.server() as running:
        body = {"model": "default", "messages": [USER]}
        failed = await running.http.post("/v1/chat/completions", json=body, headers=SDK)
        assert failed.status_code == 503
        world.engine.script = Script(pieces=("a",))
        done = await running.http.post("/v1/chat/completions", json=body, headers=RETRY)
        assert done.status_code == 200


@pytest.mark.parametrize("comes_back", [True, False])
async def test_an_sdk_that_lost_its_connection_has_a_while_to_come_back(*, comes_back: bool) -> None:
    """A whole answer goes on for ``retry_grace_s``: one generation for an SDK that comes back, cancelled otherwise."""
    held = Held(1)
    world = World(("a", "b"), NoStreamBuffer(), before_delta=held)
    limits = HttpLimits(retry_grace_s=WAIT_S if comes_back else 0.05)
    async with world.server(limits=limits) as running:
        body = {"model": "default", "messages": [USER], "store": True}
        asking = asyncio.create_task(running.http.post("/v1/chat/completions", json=body, headers=SDK))
        await held.reached.wait()
        asking.cancel()
        if not comes_back:
            assert (await running.payload_of("CompletionCancelled"))["reason"] == "client_disconnected"
            return
        await asyncio.sleep(0.05)
        retrying = asyncio.create_task(running.http.post("/v1/chat/completions", json=body, headers=RETRY))
        await asyncio.sleep(0.05)
        held.released.set()
        assert (await retrying).json()["choices"][0]["message"]["content"] == "ab"
        assert len(world.engine.requests) == 1


async def test_a_thousand_retries_under_one_key_are_one_generation() -> None:
    """All get the answer of the one that runs."""
    held = Held(1)
    world = World(("a", "b"), NoStreamBuffer(), before_delta=held)
    async with world.server() as running:
        body = json.dumps({"model": "default", "messages": [USER]})
        request = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Idempotency-Key: once\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )

        async def ask() -> str:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(request.encode())
            answer = await reader.read()
            writer.close()
            return completion_of(answer.decode())

        asking = [asyncio.create_task(ask()) for _ in range(1000)]
        await held.reached.wait()
        held.released.set()
        assert len(set(await asyncio.gather(*asking))) == 1
        assert len(world.engine.requests) == 1
