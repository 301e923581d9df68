"""Chats over a WebSocket: the same chunks as server-sent events, several at once, cut and resumed anywhere."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.projections.stream_files import FileStreams
from manent.adapters.store.memory import MemoryEventStore
from manent.app.system import RandomIds, SystemClock
from manent.domain.extensions import AnswerFacts, RequestFacts
from manent.domain.messages import ToolCall
from manent.domain.usecases.run_middleware import MiddlewareChain
from tests.support.hooks import Held
from tests.support.http import USER, WAIT_S, RawConnection, Running, client, raw_connection, running_server
from tests.support.websockets import Said, chats, chunks_of

CALL = ToolCall(id="call_1", name="look", arguments='{"at": "it"}')
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
SCRIPTS: Mapping[str, tuple[tuple[str | ToolCall, ...], dict[str, Any]]] = {
    "text": (("Hel", "lo, ", "wörld", " \N{GRINNING FACE}"), {}),
    "usage, logprobs": (("a", "b"), {"stream_options": {"include_usage": True}, "logprobs": True}),
    "tools": (("I look", CALL), {"tools": TOOLS}),
    "choices": (("a", "b"), {"n": 2}),
}


async def slowly(_delta: int) -> None:
    """Let the writer send each delta before the next one."""
    for _ in range(5):
        await asyncio.sleep(0)


def texts(said: list[Said]) -> str:
    """The text of the first choice."""
    choices = [choice for one in said if one["type"] == "chunk" for choice in one["data"]["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices if choice["index"] == 0)


@pytest.mark.parametrize("name", SCRIPTS)
async def test_chunks_are_those_of_server_sent_events(name: str) -> None:
    """Told from its beginning, a completion is the same over both, to the byte; and the live stream says the same."""
    pieces, members = SCRIPTS[name]
    usage = {"include_usage": "true"} if "stream_options" in members else {}
    async with running_server(Script(pieces=pieces, before_delta=slowly)) as running, chats(running) as one:
        await one.ask("a", **members)
        said = (await one.hear_all("a"))["a"]
        assert [said[0]["type"], said[-1]["type"]] == ["opened", "done"]
        path = f"/v1/chat/completions/{said[0]['completion_id']}/stream"
        # Told from its beginning at once, both have everything joined in the same way.
        whole = (await running.http.get(path, params=usage)).text
        await one.say(type="resume", id="b", completion_id=said[0]["completion_id"], include_usage=bool(usage))
        events = [event.split("\n") for event in whole.split("\n\n")[:-2]]
        again = (await one.hear_all("b"))["b"]
        assert chunks_of(again) == [
            (event[0].removeprefix("id: "), event[1].removeprefix("data: ")) for event in events
        ]
        assert texts(again) == texts(said)
        assert len(chunks_of(said)) >= len(events)


async def test_several_run_at_once_and_are_cancelled_one_by_one() -> None:
    """Answers interleave by id; a cancelled request is closed in the log before it is told, the others go on."""
    held = Held(1)
    limits = HttpLimits(websocket_requests_max=2)
    async with running_server(Script(before_delta=held), limits=limits) as running, chats(running) as one:
        await one.ask("a", background=True)
        await one.ask("b")
        opened = [await one.hear() for _ in range(4)]
        assert {one["id"] for one in opened} == {"a", "b"}
        await held.reached.wait()
        await one.ask("c")
        refused = (await one.hear_all("c"))["c"][-1]
        assert (refused["status"], refused["error"]["code"]) == (503, "too_many_streams")
        assert refused["retry_after_s"] > 0
        await one.ask("a")
        assert (await one.hear())["error"]["param"] == "id"
        await one.say(type="cancel", id="a")
        heard = (await one.hear_all("a"))["a"]
        assert heard[-1]["error"]["code"] == "cancelled"
        assert (await running.payload_of("CompletionCancelled"))["reason"] == "cancelled_by_client"
        await one.say(type="cancel", id="a")
        held.released.set()
        assert (await one.hear_all("b"))["b"][-1]["type"] == "done"
        await one.ask("a")
        assert (await one.hear_all("a"))["a"][-1]["type"] == "done"


class SlowAfter:
    """Middleware that takes a while behind each answer."""

    async def before(self, request: RequestFacts) -> None:
        """Let everything pass."""

    async def after(self, request: RequestFacts, answer: AnswerFacts) -> None:
        """Take a while."""
        await asyncio.sleep(0.1)


async def test_an_id_and_a_place_are_free_once_the_end_is_told() -> None:
    """Also where a plugin has not finished behind the answer."""
    async with running_server(limits=HttpLimits(websocket_requests_max=1)) as running, chats(running) as one:
        object.__setattr__(running.services, "middleware", MiddlewareChain({"slow": SlowAfter()}))
        for message_id in ("a", "a", "b"):
            await one.ask(message_id)
            assert (await one.hear_all(message_id))[message_id][-1]["type"] == "done"


MISTAKES: Mapping[str, tuple[str, str | None, str, str | None]] = {
    "no JSON": ("{", None, "invalid_json", None),
    "no object": ("[]", None, "invalid_json", None),
    "a key twice": ('{"id": "a", "id": "b"}', None, "invalid_json", None),
    "no type": ('{"id": "a"}', "a", "missing_required_parameter", "type"),
    "unknown type": ('{"id": "a", "type": "chant"}', "a", "invalid_value", "type"),
    "no id": ('{"type": "cancel"}', None, "missing_required_parameter", "id"),
    "an id that is none": ('{"type": "cancel", "id": ""}', None, "invalid_value", "id"),
    "a member too many": ('{"type": "cancel", "id": "a", "all": true}', "a", "unknown_parameter", "all"),
    "no body": ('{"type": "chat", "id": "a"}', "a", "missing_required_parameter", "body"),
    "a wrong body": ('{"type": "chat", "id": "a", "body": {"model": 1}}', "a", "invalid_type", "model"),
    "not streamed": ('{"type": "chat", "id": "a", "body": {"stream": false}}', "a", "invalid_value", "stream"),
    "no cursor": (
        '{"type": "resume", "id": "a", "completion_id": "chatcmpl-1", "cursor": "x"}',
        "a",
        "invalid_value",
        "cursor",
    ),
    "unknown completion": (
        '{"type": "resume", "id": "a", "completion_id": "chatcmpl-1/2"}',
        "a",
        "completion_not_found",
        "completion_id",
    ),
}


async def test_mistakes_are_told_and_the_socket_goes_on() -> None:
    """Each message that cannot be answered is told why, in the envelope of HTTP, with its id where it has one."""
    async with running_server() as running, chats(running) as one:
        for name, (message, message_id, code, param) in MISTAKES.items():
            await one.connection.send(message)
            told = await one.hear()
            assert (told["type"], told["id"]) == ("error", message_id), name
            assert (told["error"]["code"], told["error"]["param"]) == (code, param), name
            assert told["status"] in {400, 404}
        await one.ask("a")
        assert (await one.hear_all("a"))["a"][-1]["type"] == "done"
        for _ in range(16):
            await one.connection.send("?")
        assert (await one.closed())[0] == 4400


@pytest.mark.parametrize(
    ("message", "code"),
    [("x" * 3000, 1009), (["x" * 800] * 3, 1009), (b"{}", 1003)],
    ids=["too large", "too large in pieces", "binary"],
)
async def test_what_is_no_message_closes_the_socket(message: Any, code: int) -> None:
    """Messages are text of at most the size of a request's body."""
    async with running_server(limits=HttpLimits(body_bytes_max=2048)) as running, chats(running) as one:
        await one.connection.send(message)
        assert (await one.closed())[0] == code


async def test_a_socket_cut_anywhere_is_resumed_on_another_server(tmp_path: Any) -> None:
    """After each chunk in turn: what follows on another server continues the text, none twice and none missing."""
    store = MemoryEventStore(clock=SystemClock(), ids=RandomIds())
    engine = ScriptedEngine(Script(pieces=("Hel", "lo, ", "wörld"), before_delta=slowly))
    buffer = FileStreams(tmp_path)
    async with (
        running_server(store=store, engine=engine, streams=buffer) as first,
        running_server(store=store, engine=engine, streams=buffer) as second,
    ):
        for number in range(1, 6):
            async with chats(first) as one:
                await one.ask("a", store=True, background=True)
                opened = await one.hear()
                before: list[Said] = []
                while len(before) < number and (said := await one.hear())["type"] == "chunk":
                    before.append(said)
                one.connection.transport.abort()
            async with chats(second) as one:
                cursor = before[-1]["cursor"]
                await one.say(type="resume", id="r", completion_id=opened["completion_id"], cursor=cursor)
                rest = (await one.hear_all("r"))["r"]
            assert texts([*before, *rest]) == "Hello, wörld"
            assert rest[-1]["type"] == "done"


@pytest.mark.parametrize("background", [False, True])
async def test_leaving_cancels_unless_it_goes_on_in_the_background(*, background: bool) -> None:
    """As leaving server-sent events does."""
    held = Held(1)
    async with running_server(Script(before_delta=held)) as running:
        async with chats(running) as one:
            await one.ask("a", background=background)
            await held.reached.wait()
        if not background:
            assert (await running.payload_of("CompletionCancelled"))["reason"] == "client_disconnected"
        held.released.set()
        if background:
            await running.payload_of("CompletionGenerated")


async def test_a_key_makes_a_repeated_message_one_request() -> None:
    """The same key and body over another socket are told the same answer, which is generated once."""
    async with running_server() as running:
        told = []
        for _ in range(2):
            async with chats(running) as one:
                await one.ask("a", key="once", store=True)
                told.append(texts((await one.hear_all("a"))["a"]))
        assert told[0] == told[1] != ""
        assert len(running.engine.requests) == 1


async def test_a_client_that_never_reads_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """It holds no more than a socket's buffers, the generation is stopped as stalled, and each request is logged."""
    caplog.set_level(logging.INFO, logger="manent.http")
    script = Script(pieces=("x" * 10_000,) * 4_000, before_delta=Held(3_000))
    limits = HttpLimits(stall_timeout_s=0.2)
    async with running_server(script, limits=limits) as running, unread(running) as raw:
        body = {"model": "default", "messages": [USER], "max_tokens": 4_000}
        await raw.send(masked(1, json.dumps({"type": "chat", "id": "a", "body": body}).encode()))
        (connection,) = running.server._server.connections  # type: ignore[union-attr]  # it was started
        async with asyncio.timeout(WAIT_S):
            while not connection.is_unread:  # noqa: ASYNC110 (a transport sends no event)
                await asyncio.sleep(0.005)
        await raw.send(masked(1, json.dumps({"type": "chat", "id": "b", "body": body}).encode()))
        await connections_are(running, 0)
        async with asyncio.timeout(WAIT_S):
            while len(cancelled := await running.log("CompletionCancelled")) < 2:  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0.005)
        assert "client_stalled" in {json.loads(one.payload or b"")["reason"] for one in cancelled}
        async with asyncio.timeout(WAIT_S):
            while len(caplog.messages) < 3:  # noqa: ASYNC110 (a log sends no event)
                await asyncio.sleep(0.005)
    assert sorted(line for line in caplog.messages if "POST" in line) == [
        "POST /v1/chat/completions 200 stream client_stalled",
        "POST /v1/chat/completions 499",
    ]


@pytest.mark.timeout(60)
async def test_a_flood_of_pings_is_not_read_while_its_pongs_are_not() -> None:
    """Pongs that nobody reads do not pile up: the client is not read any more, and what it sends stays with it."""
    async with running_server() as running, unread(running) as raw:
        (connection,) = running.server._server.connections  # type: ignore[union-attr]  # it was started
        flooding = asyncio.create_task(raw.send(masked(9, b"x" * 125) * 100_000))
        async with asyncio.timeout(WAIT_S):
            while connection.transport.is_reading():  # noqa: ASYNC110 (a transport sends no event)
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert connection.transport.get_write_buffer_size() < 2**20
        assert not connection.transport.is_reading()
        assert not flooding.done()
        flooding.cancel()
        raw.break_off()
        await connections_are(running, 0)


@pytest.mark.parametrize(("count", "size_bytes"), [(50, 200), (6, 60_000)], ids=["many", "large"])
async def test_messages_wait_within_a_bound_also_when_the_client_reads_on(count: int, size_bytes: int) -> None:
    """While as much waits as may, nothing is read, whatever the client reads; and then again."""
    message = json.dumps({"type": "cancel", "id": "a"}).encode().ljust(size_bytes)
    async with running_server() as running, chats(running) as one:
        (connection,) = running.server._server.connections  # type: ignore[union-attr]  # it was started
        connection.data_received(masked(1, message) * count)
        connection.pause_writing()
        connection.resume_writing()
        assert not connection.transport.is_reading()
        await one.ask("a")
        assert (await one.hear_all("a"))["a"][-1]["type"] == "done"


async def test_a_client_that_answers_no_ping_is_cut() -> None:
    """Whoever says nothing at all, for as long as one may leave a stream unread, is taken to be gone."""
    limits = HttpLimits(stall_timeout_s=0.1, websocket_ping_s=0.05)
    async with running_server(limits=limits) as running, unread(running):
        await connections_are(running, 0)


def masked(opcode: int, payload: bytes) -> bytes:
    """A frame as clients send it (RFC 6455, 5.2), with a mask of zeros."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
    return bytes([0x80 | opcode]) + size + b"\0\0\0\0" + payload


@asynccontextmanager
async def unread(running: Running) -> AsyncGenerator[RawConnection]:
    """An open WebSocket of which nothing is ever read."""
    async with raw_connection(running.port, receive_buffer_bytes=4096) as raw:
        fields = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
        await raw.send(f"GET /v1/ws/chat HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n".encode())
        await raw.read_until(b"\r\n\r\n")
        yield raw
        raw.break_off()


async def connections_are(running: Running, count: int) -> None:
    """Return once so many connections are open."""
    async with asyncio.timeout(WAIT_S):
        while running.server.connections != count:  # noqa: ASYNC110 (sockets send no event)
            await asyncio.sleep(0.005)


async def test_an_idle_socket_is_pinged_and_closed() -> None:
    """It is kept alive for a while, and not for ever; a silent one that answers no ping is cut."""
    limits = HttpLimits(websocket_ping_s=0.05, websocket_idle_s=0.2)
    async with running_server(limits=limits) as running, chats(running) as one:
        assert await one.closed() == (1000, "nothing was asked for 0.2 s")


async def test_a_drain_ends_what_runs_and_then_the_sockets() -> None:
    """Nothing new is begun, what runs goes to its end, and each socket is told that the server goes away."""
    held = Held(1)
    async with running_server(Script(before_delta=held)) as running, chats(running) as idle, chats(running) as busy:
        await busy.ask("a")
        await held.reached.wait()
        running.server.keep_no_connection()
        assert (await idle.closed())[0] == 1001
        asyncio.get_running_loop().call_later(0.05, held.released.set)
        heard = (await busy.hear_all("a"))["a"]
        assert heard[-1]["type"] == "done"
        assert (await busy.closed())[0] == 1001


async def test_sockets_are_bounded_and_let_plain_http_in() -> None:
    """Beyond the bound a handshake is told 503; a place that is left is free again."""
    limits = HttpLimits(websockets_max=2)
    async with running_server(limits=limits) as running:
        async with chats(running) as one, chats(running):
            refused = await handshake(running)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_websockets")
            assert (await running.chat()).status_code == 200
            await one.ask("a")
            assert (await one.hear_all("a"))["a"][-1]["type"] == "done"
        await connections_are(running, 1)
        async with chats(running) as one:
            await one.ask("a")
            assert (await one.hear_all("a"))["a"][-1]["type"] == "done"


HANDSHAKE = {
    "connection": "keep-alive, Upgrade",
    "upgrade": "websocket",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "sec-websocket-version": "13",
}


async def handshake(running: Running, **headers: str) -> Any:
    """The answer to an opening handshake that is to be refused."""
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return await running.http.get("/v1/ws/chat", headers={**HANDSHAKE, **changed})


REFUSALS: Mapping[str, tuple[dict[str, str], int, str]] = {
    "no upgrade": ({"upgrade": "h2c"}, 426, "upgrade_required"),
    "a key that is none": ({"sec_websocket_key": "?"}, 400, "bad_request"),
    "another version": ({"sec_websocket_version": "8"}, 400, "bad_request"),
    "another protocol": ({"sec_websocket_protocol": "chat"}, 400, "invalid_value"),
    "a foreign page": ({"origin": "https://evil.example"}, 403, "origin_not_allowed"),
    "no page": ({"origin": "null"}, 403, "origin_not_allowed"),
    "another name": ({"host": "evil.example"}, 421, "unknown_host"),
}


async def test_handshakes_pass_the_front_door() -> None:
    """What is no handshake, or comes from where nobody may come from, is refused before anything is switched."""
    async with running_server() as running:
        for name, (headers, status, code) in REFUSALS.items():
            refused = await handshake(running, **headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (status, code), name
        async with chats(running, origin=f"http://127.0.0.1:{running.port}") as one:
            await one.ask("a")
            assert (await one.hear_all("a"))["a"][-1]["type"] == "done"


async def test_another_may_not_resume() -> None:
    """A completion is there for who asked for it."""
    store = MemoryEventStore(clock=SystemClock(), ids=RandomIds())
    async with (
        running_server(store=store, principal=client("ann")) as anns,
        running_server(store=store, principal=client("bob")) as bobs,
        chats(anns) as one,
        chats(bobs) as other,
    ):
        await one.ask("a", store=True)
        completion_id = (await one.hear_all("a"))["a"][0]["completion_id"]
        await other.say(type="resume", id="b", completion_id=completion_id)
        assert (await other.hear_all("b"))["b"][0]["error"]["code"] == "completion_not_found"


async def test_text_that_is_no_utf_8_closes_the_socket() -> None:
    """As RFC 6455, 8.1 has it."""
    async with running_server() as running, chats(running) as one:
        one.connection.transport.write(b"\x81\x82\0\0\0\0\xff\xff")
        assert (await one.closed())[0] == 1007
        with pytest.raises(ConnectionClosed):
            await one.connection.recv()
