"""Who may open a WebSocket, by what, and for how long; and that its messages are limited, logged and counted."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.access import Scope
from manent.domain.limits import RequestLimits
from tests.support.access import CLIENT, Door, admin, bearer, door, grant, guarded_server
from tests.support.hooks import Held
from tests.support.http import Running
from tests.support.websockets import chats


@pytest_asyncio.fixture
async def at() -> Door:
    """A door with a key, so that it is not open to everybody."""
    at = door()
    await at.key("spare")
    return at


@pytest_asyncio.fixture
async def held() -> Held:
    """Holds a chat once it has begun."""
    return Held(1)


@pytest_asyncio.fixture
async def running(at: Door, held: Held) -> AsyncGenerator[Running]:
    """A server behind it that judges often."""
    engine = ScriptedEngine(Script(before_delta=held))
    async with guarded_server(at, engine=engine, limits=HttpLimits(websocket_judge_s=0.05)) as running:
        yield running


async def test_a_credential_comes_in_a_header_or_as_a_subprotocol(at: Door, running: Running, held: Held) -> None:
    """As everywhere, or as scripts of browsers can send it; the one that is chosen is never the credential."""
    held.released.set()
    key = (await at.key("ann")).secret.text
    async with chats(running, **bearer(key)) as one:
        await one.ask("a")
        assert (await one.hear_all("a"))["a"][-1]["type"] == "done"
    for protocols in (["manent.v1", f"bearer.{key}"], [f"bearer.{key}", "manent.v1"]):
        async with chats(running, protocols=protocols) as one:
            assert one.connection.subprotocol == "manent.v1"
            await one.ask("a", store=True, metadata={"k": "v"})
            said = (await one.hear_all("a"))["a"]
            assert said[-1]["type"] == "done"
    stored = await running.http.get(f"/v1/chat/completions/{said[0]['completion_id']}", headers=bearer(key))
    assert stored.status_code == 200


async def test_handshakes_without_a_right_are_refused(at: Door, running: Running) -> None:
    """Nobody, a guess, a revoked key, two that differ, one without the scope; never by the address."""
    key, other = (await at.key("ann")).secret.text, (await at.key("bob")).secret.text
    revoked = await at.key("eve")
    await at.keys.revoke(admin(), revoked.key.key_id)
    reader = (await at.key("ann", Scope.SESSIONS)).secret.text
    tried: list[tuple[list[str], dict[str, str], int]] = [
        ([], {}, 401),
        (["manent.v1"], {}, 401),
        (["manent.v1", "bearer.mnt_guess"], {}, 401),
        ([], bearer(revoked.secret.text), 401),
        (["manent.v1", f"bearer.{key}"], bearer(other), 401),
        (["manent.v1", f"bearer.{reader}"], {}, 403),
        ([f"bearer.{key}"], {}, 400),
    ]
    for protocols, headers, status in tried:
        with pytest.raises(InvalidStatus) as refused:
            async with chats(running, protocols=protocols, **headers):
                pass
        assert refused.value.response.status_code == status
        assert key not in str(refused.value.response.headers)
    with pytest.raises(InvalidStatus) as refused:
        async with chats(running, **{"sec-websocket-protocol": f"bearer.{key}, @"}):
            pass
    assert (refused.value.response.status_code, key in str(refused.value.response.body)) == (400, False)
    in_address = await running.http.get("/v1/ws/chat", params={"api_key": key})
    assert in_address.status_code == 401


async def test_a_revoked_key_closes_its_sockets(at: Door, running: Running, held: Held) -> None:
    """Within a bounded time, also where a chat runs, which is left; another's socket is not touched."""
    made = await at.key("ann")
    others = (await at.key("bob")).secret.text
    async with chats(running, **bearer(made.secret.text)) as one, chats(running, **bearer(others)) as other:
        await one.ask("a")
        await held.reached.wait()
        await at.keys.revoke(admin(), made.key.key_id)
        code, reason = await one.closed()
        assert (code, reason) == (1008, "invalid_api_key: the API key was revoked")
        assert (await running.payload_of("CompletionCancelled"))["reason"] == "client_disconnected"
        held.released.set()
        await other.ask("b")
        assert (await other.hear_all("b"))["b"][-1]["type"] == "done"


async def test_each_message_is_judged_and_limited_as_a_request(at: Door, held: Held) -> None:
    """A key that loses its scope, or has reached its limit, is told so message by message, as HTTP tells it."""
    held.released.set()
    made = await at.key("ann", limits=RequestLimits(requests_per_minute=2))
    async with guarded_server(at) as running, chats(running, **bearer(made.secret.text)) as one:
        await one.ask("a")  # the second request: the first one was the handshake
        assert (await one.hear_all("a"))["a"][-1]["type"] == "done"
        await one.ask("b")
        told = (await one.hear_all("b"))["b"][-1]
        assert (told["status"], told["error"]["code"]) == (429, "rate_limit_exceeded")
        assert told["retry_after_s"] > 0
    made = await at.key("bob")
    async with guarded_server(at) as running, chats(running, **bearer(made.secret.text)) as one:
        await at.keys.change(admin(), made.key.key_id, lambda _: grant("bob", Scope.SESSIONS))
        await one.ask("a")
        assert (await one.hear_all("a"))["a"][-1]["status"] == 403


async def test_a_line_is_logged_for_each_message_and_for_the_socket(
    at: Door, running: Running, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """With ids of their own, as the requests that they stand for; no secret, and nothing that was said."""
    held.released.set()
    key = (await at.key("ann", *CLIENT)).secret.text
    with caplog.at_level(logging.INFO, logger="manent.http"):
        async with chats(running, protocols=["manent.v1", f"bearer.{key}"]) as one:
            await one.ask("a", messages=[{"role": "user", "content": "violet-heron"}])
            await one.hear_all("a")
            await one.say(type="chat", id="b", body={"model": "nobody", "messages": []})
            await one.hear_all("b")
            await one.say(type="resume", id="c", completion_id="chatcmpl-0")
            await one.hear_all("c")
        await running.http.get("/health/live")
        while not any("101" in line for line in caplog.messages):
            await running.http.get("/health/live")
    lines = [line for line in caplog.messages if "health" not in line]
    assert lines == [
        "POST /v1/chat/completions 200 stream done",
        "POST /v1/chat/completions 400",
        "GET /v1/chat/completions/chatcmpl-0/stream 404",
        "GET /v1/ws/chat 101 closed 1000",
    ]
    assert key not in caplog.text
    assert "violet-heron" not in caplog.text
