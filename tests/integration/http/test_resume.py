"""Streams that outlive their connection: cut anywhere, resumed here, elsewhere and later, and told to the last byte."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from manent.adapters.inference.script import Thought
from manent.adapters.projections.stream_files import FileStreams
from manent.domain.errors import EngineUnavailable
from manent.domain.messages import ToolCall
from manent.domain.streams import NoStreamBuffer
from manent.domain.usecases.ending import Ending
from tests.support.hooks import Held
from tests.support.http import USER, client
from tests.support.streamed import completion_of, events_of, id_of, resumed, said, told
from tests.support.world import World

CALL = ToolCall(id="call_1", name="look", arguments='{"at": "it"}')
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
SCRIPTS: dict[str, tuple[tuple[str | ToolCall, ...], dict[str, Any]]] = {
    "text": (("Hel", "lo, ", "wörld", " \N{GRINNING FACE}"), {}),
    "usage": (("a", "b"), {"stream_options": {"include_usage": True}}),
    "reasoning": ((Thought("hm"), Thought("m"), "so", " it is"), {}),
    "tools": ((Thought("look"), "I look", CALL), {"tools": TOOLS}),
    "choices": (("a", "b", "c"), {"n": 2}),
    "logprobs": (("a", "b"), {"logprobs": True, "top_logprobs": 2}),
    "nothing": ((), {}),
}


async def slowly(_delta: int) -> None:
    """Let the writer send each delta before the next one."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_stream_cut_after_any_event_goes_on_behind_it(name: str, tmp_path: Path) -> None:
    """Resumed where it ran, and on another server from the buffer: the same bytes, none twice and none missing."""
    pieces, members = SCRIPTS[name]
    world = World(pieces, FileStreams(tmp_path), before_delta=slowly)
    usage = {"include_usage": "true"} if "stream_options" in members else {}
    async with world.server() as first, world.server() as second:
        answer = await first.chat(stream=True, store=True, **members)
        uncut = events_of(answer.text)
        completion_id = completion_of(answer.text)
        for running in (first, second):
            again = await resumed(running, completion_id, **usage)
            assert (again.status_code, told(events_of(again.text))) == (200, told(uncut))
            for number, event in enumerate(uncut[:-1], start=1):
                rest = events_of((await resumed(running, completion_id, id_of(event), **usage)).text)
                assert told(uncut[:number] + rest) == told(uncut), (number, id_of(event))
                assert rest[-1] == "data: [DONE]"
        assert len(world.engine.requests) == 1


@pytest.mark.parametrize("name", SCRIPTS)
async def test_without_a_buffer_the_log_tells_the_same(name: str) -> None:
    """The log alone goes on behind any event, of several texts and of tool calls too, and to the byte."""
    pieces, members = SCRIPTS[name]
    world = World(pieces, NoStreamBuffer(), before_delta=slowly)
    usage = {"include_usage": "true"} if "stream_options" in members else {}
    async with world.server() as first, world.server() as second:
        uncut = events_of((await first.chat(stream=True, store=True, **members)).text)
        completion_id = completion_of(uncut[0])
        for number, event in enumerate(uncut[:-1], start=1):
            rest = await resumed(second, completion_id, id_of(event), **usage)
            assert rest.status_code == 200
            assert told(uncut[:number] + events_of(rest.text)) == told(uncut), id_of(event)


@pytest.mark.parametrize("name", ["text", "reasoning", "nothing", "choices", "tools"])
async def test_a_log_that_does_not_know_the_deltas_tells_what_it_can(name: str) -> None:
    """One text goes on at the reader's last character, as often as it is cut; of several, the reader is told so.

    So it is with logs of before deltas were counted.
    """
    pieces, members = SCRIPTS[name]
    world = World(pieces, NoStreamBuffer(), before_delta=slowly)
    with pytest.MonkeyPatch.context() as before:
        before.setattr(Ending, "_piece_sizes", lambda _: None)
        async with world.server() as first:
            uncut = events_of((await first.chat(stream=True, store=True, **members)).text)
    completion_id, whole = completion_of(uncut[0]), told(uncut)
    async with world.server() as second:
        for number, event in enumerate(uncut[:-1], start=1):
            rest = await resumed(second, completion_id, id_of(event))
            if name in {"choices", "tools"} and rest.status_code != 200:
                assert (rest.status_code, rest.json()["error"]["code"]) == (410, "stream_expired")
                continue
            events = events_of(rest.text)
            assert told(uncut[:number] + events) == whole
            for again, event_again in enumerate(events[:-1], start=1):
                last = events_of((await resumed(second, completion_id, id_of(event_again))).text)
                assert told(uncut[:number] + events[:again] + last) == whole
        if name in {"choices", "tools"}:
            assert (await resumed(second, completion_id, id_of(uncut[-3]))).status_code == 410


async def test_a_stream_that_runs_is_followed_to_its_end_from_anywhere(tmp_path: Path) -> None:
    """Beside its first reader: here at once, on another server through the buffer."""
    held = Held(2)
    world = World(("a", "b", "c", "d"), FileStreams(tmp_path), before_delta=held)
    async with world.server() as first, world.server() as second:
        streaming = asyncio.create_task(first.chat(stream=True, session_id="s"))
        await held.reached.wait()
        (running,) = first.use_cases.live
        readers = [asyncio.create_task(resumed(server, running.completion_id)) for server in (first, second)]
        await asyncio.sleep(0.05)
        held.released.set()
        uncut, *others = [said(events_of(answer.text)) for answer in await asyncio.gather(streaming, *readers)]
        assert uncut == "abcd"
        assert others == [uncut, uncut]


async def test_a_failure_is_told_again(tmp_path: Path) -> None:
    """What was said before it, and the same error, from the log; the server that ran it says the same."""
    failure = EngineUnavailable("the runner crashed")
    world = World(("a", "b"), FileStreams(tmp_path), before_delta=slowly, failure=failure, fails_at=2)
    async with world.server() as first, world.server() as second:
        uncut = events_of((await first.chat(stream=True, store=True)).text)
        for running in (first, second):
            again = await resumed(running, completion_of(uncut[0]), id_of(uncut[1]))
            assert told(events_of(again.text)[:-1]) == told(uncut[2:-1])
            assert events_of(again.text)[-1] == uncut[-1]


async def test_nobody_else_reads_a_stream() -> None:
    """Another's stream, one that never was and a damaged id have one answer; ids hold 80 random bits."""
    world = World(("a",), NoStreamBuffer())
    stranger = client("eve", tenant="default")
    async with world.server() as first, world.server(principal=stranger) as second:
        completion_id = completion_of((await first.chat(stream=True, store=True)).text)
        for running, asked in ((second, completion_id), (first, "chatcmpl-" + "0" * 32), (first, "../../etc")):
            answer = await resumed(running, asked)
            assert answer.status_code == 404
        for wrong in ("x", "5-3.1.0", "1", "-1-2.3.4", "1-2.3", "9" * 40, "0-1.1.1\u0663"):
            answer = await running.http.get(
                f"/v1/chat/completions/{completion_id}/stream", params={"starting_after": wrong}
            )
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value"), wrong
        beyond = await resumed(first, completion_id, "500-600.1.9000")
        assert (beyond.status_code, beyond.json()["error"]["code"]) == (410, "stream_expired")


async def test_what_is_not_recorded_is_gone_with_its_server() -> None:
    """Without a session or store, a stream can be resumed where it ran, and nowhere else."""
    world = World(("a", "b"), NoStreamBuffer(), before_delta=slowly)
    async with world.server() as first, world.server() as second:
        uncut = events_of((await first.chat(stream=True)).text)
        completion_id = completion_of(uncut[0])
        assert events_of((await resumed(first, completion_id, id_of(uncut[1]))).text) == uncut[2:]
        gone = await resumed(second, completion_id)
        assert "content_not_recorded" in gone.text


@pytest.mark.parametrize("background", [True, False])
async def test_a_client_that_leaves_may_have_asked_for_the_rest(*, background: bool) -> None:
    """``background: true`` has it generated to its end; without, it is cancelled, and a reader is told so."""
    held = Held(2)
    world = World(("a", "b", "c"), NoStreamBuffer(), before_delta=held)
    async with world.server() as running:
        members = {"stream": True, "background": background, "session_id": "s"}
        body = {"model": "default", "messages": [USER], **members}
        async with running.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = aiter(answer.aiter_lines())
            seen = "".join([await anext(lines) + "\n" for _ in range(3)])
            await held.reached.wait()
        if not background:
            await running.payload_of("CompletionCancelled")
        held.released.set()
        rest = (await resumed(running, completion_of(seen), id_of(seen))).text
        if background:
            assert said(events_of(rest)) == "abc"
            assert (await running.payload_of("CompletionGenerated"))["text"] == "abc"
        else:
            assert "cancelled" in events_of(rest)[-1]
