"""Responses whose reader comes back: by a retry, by the last event's number, and on a server that does not run them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.script import Script, Thought
from manent.adapters.projections.lru import LruContextCache
from manent.adapters.projections.stream_files import FileStreams
from manent.app.background import in_background
from manent.app.system import SystemClock
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.errors import EngineUnavailable
from manent.domain.messages import ToolCall
from manent.domain.response_errors import RunsElsewhere
from manent.domain.streams import NoStreamBuffer
from manent.domain.usecases import tell_recorded
from manent.domain.usecases.cancel_response import CancelResponse
from manent.domain.usecases.sessions import Sessions
from tests.support.hooks import Held
from tests.support.http import WAIT_S, Running, client
from tests.support.strict import check_order, strict_events, strict_response
from tests.support.world import World

SDK, RETRY = {"X-Stainless-Retry-Count": "0"}, {"X-Stainless-Retry-Count": "1"}
CALL = ToolCall(id="call_1", name="f", arguments='{"a": 1}')
PIECES = (Thought("hm"), Thought("m"), "so ", "it ", CALL, "is")
CREATE = "/v1/responses"


async def post(running: Running, headers: dict[str, str] | None = None, **members: Any) -> httpx.Response:
    """Ask for a response."""
    body = {"model": "default", "input": "hello", **members}
    return await running.http.post(CREATE, json=body, headers=headers)


async def stream_of(running: Running, response_id: str, after: int = -1) -> list[dict[str, Any]]:
    """The response's events behind number ``after``."""
    query = {"stream": "true"} | ({} if after < 0 else {"starting_after": str(after)})
    answer = await running.http.get(f"{CREATE}/{response_id}", params=query)
    assert answer.status_code == 200, answer.text
    return strict_events(answer.text, first=after + 1)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_response_is_followed_on_another_server_while_it_runs(tmp_path: Path, *, kept: bool) -> None:
    """Event by event through the buffer; without one, from the log at its end: the same events, from any number on."""
    held = Held(3)
    world = World(PIECES, FileStreams(tmp_path) if kept else NoStreamBuffer(), before_delta=held)
    async with world.server() as first, world.server() as second:
        response_id = (await post(first, background=True)).json()["id"]
        await asyncio.wait_for(held.reached.wait(), WAIT_S)
        state = (await second.http.get(f"{CREATE}/{response_id}")).json()["status"]
        assert state == ("in_progress" if kept else "queued")
        path = f"{CREATE}/{response_id}?stream=true"
        async with second.http.stream("GET", path) as following:
            lines = aiter(following.aiter_lines())
            seen = ""
            while kept and '"delta":"so "' not in seen:
                seen += await anext(lines) + "\n"
            others = [asyncio.create_task(stream_of(second, response_id, after)) for after in (-1, 2, 4, 9)]
            await asyncio.sleep(0.05)
            held.released.set()
            seen += "\n".join([line async for line in lines]) + "\n"
        whole = strict_events(seen)
        assert check_order(whole) == (await first.http.get(f"{CREATE}/{response_id}")).json()
        assert [await other for other in others] == [whole, whole[3:], whole[5:], whole[10:]]
        for running in (first, second):
            assert await stream_of(running, response_id) == whole
        assert not second.use_cases.resume.following


async def test_what_cannot_be_followed_longer_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream ends in an error with the next number, and the response goes on: so does whoever comes back."""
    held = Held(3)
    world = World(PIECES, FileStreams(tmp_path), before_delta=held)
    async with world.server() as first, world.server() as second:
        response_id = (await post(first, background=True)).json()["id"]
        await asyncio.wait_for(held.reached.wait(), WAIT_S)
        with monkeypatch.context() as patched:
            patched.setattr(tell_recorded, "FOLLOW_S", 0.1)
            *told, error = await stream_of(second, response_id)
        assert (error["type"], error["code"]) == ("error", "runner_crashed")
        assert "resume" in error["message"]
        held.released.set()
        await first.payload_of("CompletionGenerated")
        rest = await stream_of(second, response_id, told[-1]["sequence_number"])
        assert [*told, *rest] == await stream_of(first, response_id)
        assert check_order([*told, *rest])["status"] == "completed"


async def test_whoever_leaves_another_servers_stream_leaves_it_alone(tmp_path: Path) -> None:
    """The response goes on where it runs, in the background or not; nothing goes on where its reader was."""
    held = Held(1)
    world = World(PIECES, FileStreams(tmp_path), before_delta=held)
    async with world.server() as first, world.server() as second:
        asking = asyncio.create_task(post(first))
        await asyncio.wait_for(held.reached.wait(), WAIT_S)
        (running,) = first.use_cases.live
        path = f"{CREATE}/{running.completion_id}?stream=true"
        async with second.http.stream("GET", path) as following:
            await anext(aiter(following.aiter_lines()))
            assert second.use_cases.resume.following == 1
        async with asyncio.timeout(WAIT_S):
            while second.use_cases.resume.following:  # noqa: ASYNC110 (nobody is told of a reader's end)
                await asyncio.sleep(0.01)
        held.released.set()
        assert (await asking).json()["status"] == "completed"


async def test_a_response_is_cancelled_through_another_server(tmp_path: Path) -> None:
    """That one records the wish, the one that runs it reads it there: one terminal event, told by both."""
    held = Held(3)
    world = World(PIECES, FileStreams(tmp_path), before_delta=held)
    async with world.server() as first, world.server() as second:
        watches = {"watch": first.use_cases.responses.watch.keep_watching}
        async with in_background(watches):
            response_id = (await post(first, background=True)).json()["id"]
            await asyncio.wait_for(held.reached.wait(), WAIT_S)
            path = f"{CREATE}/{response_id}"
            following = asyncio.create_task(stream_of(second, response_id))
            answers = await asyncio.gather(*(second.http.post(f"{path}/cancel") for _ in range(3)))
            assert {strict_response(answer).status for answer in answers} == {"cancelled"}
            assert (await second.payload_of("CompletionCancelled"))["reason"] == "response_cancelled"
            asked = await second.log("CancellationRequested")
            assert {entry.header.causation_id for entry in asked} == {response_id}
            events = await following
            assert events[-1]["response"] == answers[0].json() == (await first.http.get(path)).json()
            assert await stream_of(first, response_id) == events
            again = await second.http.post(f"{path}/cancel")
            assert again.json() == answers[0].json()
            assert len(await second.log("CancellationRequested")) == len(asked)
            stopped = (await second.http.get(path)).json()["session_id"]
        world.engine.script = Script(pieces=("on",))
        on = await post(second, previous_response_id=response_id)
        assert (on.status_code, on.json()["session_id"]) == (200, stopped)


async def test_a_server_that_does_not_answer_is_not_waited_for_long(tmp_path: Path) -> None:
    """The wish stands in the log, and whoever asked is told that it was not heard yet; strangers cannot ask."""
    held = Held(1)
    world = World(PIECES, FileStreams(tmp_path), before_delta=held)
    stranger = client("eve", LOCAL_OPERATOR.tenant)
    async with world.server() as first, world.server() as second, world.server(principal=stranger) as hers:
        response_id = (await post(first, background=True)).json()["id"]
        assert (await hers.http.post(f"{CREATE}/{response_id}/cancel")).status_code == 404
        sessions = Sessions(world.store, LruContextCache(budget_bytes=2**20))
        cancel = CancelResponse(
            responses=second.use_cases.responses.read, sessions=sessions, clock=SystemClock(), wait_s=0.05
        )
        with pytest.raises(RunsElsewhere, match=r"within 0\.05 s"):
            await cancel.run(LOCAL_OPERATOR, response_id, request_id="req_1")
        assert len(await second.log("CancellationRequested")) == 1
        held.released.set()
        await first.payload_of("CompletionGenerated")


async def test_a_reader_goes_on_behind_the_last_event_that_it_has() -> None:
    """Last-Event-ID says what starting_after says; ids are sent to those who read events and nothing else."""
    world = World(PIECES, NoStreamBuffer())
    async with world.server() as running:
        response_id = (await post(running)).json()["id"]
        path, query = f"{CREATE}/{response_id}", {"stream": "true"}
        whole = await stream_of(running, response_id)
        plain = await running.http.get(path, params=query, headers={"Last-Event-ID": "4"})
        assert strict_events(plain.text, first=5) == whole[5:]
        both = await running.http.get(path, params={**query, "starting_after": "4"}, headers={"Last-Event-ID": "4"})
        assert both.text == plain.text
        browser = {"Accept": "text/event-stream"}
        told = await running.http.get(path, params=query, headers=browser)
        blocks = told.text.removesuffix("\n\n").split("\n\n")
        assert [int(block.split("\n")[0].removeprefix("id: ")) for block in blocks] == list(range(len(whole)))
        rest = await running.http.get(path, params=query, headers=browser | {"Last-Event-ID": "7"})
        assert rest.text == "\n\n".join(blocks[8:]) + "\n\n"
        for value, after, param in (
            ("4", "5", "starting_after"),
            ("x", None, "Last-Event-ID"),
            ("-1", None, "Last-Event-ID"),
            ("9" * 16, None, "Last-Event-ID"),
        ):
            wrong = query if after is None else {**query, "starting_after": after}
            refused = await running.http.get(path, params=wrong, headers={"Last-Event-ID": value})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), value
        unread = await running.http.get(path, headers={"Last-Event-ID": "4"})
        assert unread.json()["status"] == "completed"


@pytest.mark.parametrize("members", [{}, {"stream": True}, {"store": False}, {"background": True}], ids=str)
async def test_a_retry_gets_what_the_attempt_before_it_asked_for(members: dict[str, Any]) -> None:
    """The same bytes by the same sender with a count above 0, while it runs and after; and nothing else does."""
    held = Held(1)
    world = World(PIECES, NoStreamBuffer(), before_delta=held)
    async with world.server() as running:

        async def ask(headers: dict[str, str], **more: Any) -> str:
            answer = await post(running, headers, **members, **more)
            assert answer.status_code == 200, answer.text
            return _id(answer)

        asking = asyncio.create_task(ask(SDK))
        await asyncio.wait_for(held.reached.wait(), WAIT_S)
        retrying = asyncio.create_task(ask(RETRY))
        await asyncio.sleep(0.05)
        held.released.set()
        first = await asking
        assert await retrying == first
        if members.get("background"):
            await running.payload_of("CompletionGenerated")
        assert await ask({"X-Stainless-Retry-Count": "2"}) == first
        assert first not in {await ask(SDK), await ask({}), await ask(RETRY, user="ann")}
        async with asyncio.timeout(WAIT_S):
            while running.use_cases.live:  # noqa: ASYNC110 (nobody is told of a completion's end)
                await asyncio.sleep(0.01)
        assert len(world.engine.requests) == 4


def _id(answer: httpx.Response) -> str:
    if answer.headers["content-type"] == "application/json":
        return str(strict_response(answer).id)
    return str(strict_events(answer.text)[0]["response"]["id"])


@pytest.mark.parametrize("comes_back", [True, False])
async def test_an_sdk_that_lost_its_connection_finds_its_response(*, comes_back: bool) -> None:
    """A whole answer goes on for ``retry_grace_s``: one generation for an SDK that comes back, cancelled otherwise."""
    held = Held(1)
    world = World(PIECES, NoStreamBuffer(), before_delta=held)
    async with world.server(limits=HttpLimits(retry_grace_s=WAIT_S if comes_back else 0.05)) as running:
        asking = asyncio.create_task(post(running, SDK))
        await asyncio.wait_for(held.reached.wait(), WAIT_S)
        asking.cancel()
        if not comes_back:
            assert (await running.payload_of("CompletionCancelled"))["reason"] == "client_disconnected"
            return
        await asyncio.sleep(0.05)
        retrying = asyncio.create_task(post(running, RETRY))
        await asyncio.sleep(0.05)
        held.released.set()
        assert strict_response(await retrying).status == "completed"
        assert len(world.engine.requests) == 1


async def test_a_retry_of_what_failed_is_generated_anew() -> None:
    """An attempt that came to nothing is no answer."""
    world = World(PIECES, NoStreamBuffer(), failure=EngineUnavailable("crashed"), fails_at=0)
    async with world.server() as running:
        assert (await post(running, SDK)).status_code == 503
        world.engine.script = Script()
        assert strict_response(await post(running, RETRY)).status == "completed"


async def test_a_key_has_one_response_wherever_it_is_sent(tmp_path: Path) -> None:
    """Twice at once, on another server while it runs, and afterwards; also where it goes on from another response."""
    held = Held(2)
    world = World(("first",), FileStreams(tmp_path))
    async with world.server() as first, world.server() as second:
        before = (await post(first)).json()["id"]
        world.engine.script = Script(before_delta=held)
        pasts: list[dict[str, Any]] = [{}, {"previous_response_id": before}, {"session_id": "talk"}]
        for number, members in enumerate(pasts):
            held.reached.clear()
            held.released.clear()
            key = {"Idempotency-Key": f"key-{number}"}
            asking = [asyncio.create_task(post(running, key, stream=True, **members)) for running in (first, first)]
            await asyncio.wait_for(held.reached.wait(), WAIT_S)
            asking.append(asyncio.create_task(post(second, key, stream=True, **members)))
            await asyncio.sleep(0.1)
            held.released.set()
            texts = {json.dumps(strict_events((await one).text)) for one in asking}
            texts.add(json.dumps(strict_events((await post(second, key, stream=True, **members)).text)))
            assert len(texts) == 1, members
        assert len(world.engine.requests) == 4
