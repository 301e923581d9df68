"""Sessions that expire: 410 from the second that they are due, used again and again, replayable for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from manent.adapters.inference.script import Script
from manent.adapters.store.memory import MemoryEventStore
from manent.app.system import RandomIds
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.errors import StoreUnavailable
from manent.domain.usecases.sessions import Sessions
from tests.support.fakes import FakeClock
from tests.support.http import USER, Running, running_server

TTL_S = 60
WHEN = "2023-11-14T22:14:20Z"


@pytest.fixture
def clock() -> FakeClock:
    """The server's clock."""
    return FakeClock()


@pytest.fixture
async def running(clock: FakeClock) -> AsyncGenerator[Running, None]:
    """A server with a session of a minute."""
    store = MemoryEventStore(clock=clock, ids=RandomIds())
    async with running_server(clock=clock, store=store) as served:
        answer = await served.http.post("/v1/sessions", json={"session_id": "s", "ttl_s": TTL_S, "messages": [USER]})
        assert answer.json()["expires_at"] == answer.json()["created_at"] + TTL_S
        yield served


USES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/v1/sessions/s", None),
    ("POST", "/v1/sessions/s", {"ttl_s": 5}),
    ("DELETE", "/v1/sessions/s", None),
    ("GET", "/v1/sessions/s/messages", None),
    ("GET", "/v1/sessions/s/messages/msg_1", None),
    ("POST", "/v1/sessions/s/messages", USER),
    ("POST", "/v1/chat/completions", {"model": "default", "messages": [USER], "session_id": "s"}),
]


@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize(("method", "path", "body"), USES)
async def test_an_expired_session_is_gone_everywhere(
    running: Running, clock: FakeClock, *, method: str, path: str, body: dict[str, Any] | None, swept: bool
) -> None:
    """Every use answers 410 with when, whether or not the sweeper came; nothing is recorded by it."""
    clock.advance(TTL_S)
    if swept:
        assert await running.use_cases.expire_sessions.run() == 1
    before = len(await running.log())
    answer = await running.http.request(method, path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (410, "session_expired", "session_id")
    assert f"expired at {WHEN}, 60 s after its last event" in error["message"]
    assert len(await running.log()) == before
    # A stream is refused with the status, too, and not inside of it.
    chat = await running.chat(session_id="s", stream=True)
    assert (chat.status_code, chat.json()["error"]["code"]) == (410, "session_expired")


@pytest.mark.parametrize(("method", "path", "body"), USES[:2] + USES[3:4] + USES[5:])
async def test_to_use_a_session_lets_it_live_on(
    running: Running, clock: FakeClock, *, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """What records an event begins its time to live again; to look at it does not."""
    clock.advance(TTL_S - 1)
    assert (await running.http.request(method, path, json=body)).is_success
    clock.advance(2)
    later = await running.http.get("/v1/sessions/s")
    assert later.status_code == (200 if method == "POST" else 410)


async def test_an_expired_session_replays_and_keeps_its_id(running: Running, clock: FakeClock) -> None:
    """The log has its end, with when it was used last; its id is taken; it is listed under its status."""
    clock.advance(TTL_S + 5)
    assert await running.use_cases.expire_sessions.run() == 1
    assert await running.use_cases.expire_sessions.run() == 0
    payload = await running.payload_of("SessionExpired")
    assert payload["expired_at_us"] - payload["last_used_at_us"] == TTL_S * 1_000_000
    (event,) = (await running.http.get("/v1/events", params={"type": "SessionExpired"})).json()["data"]
    assert (event["header"]["actor"], event["header"]["stream_id"]) == ("manent", "session-s")
    replayed = await running.use_cases.replays.recorded.replay.at(LOCAL_OPERATOR, "s")
    assert [message.text for message in replayed.messages] == ["hello"]
    taken = await running.http.post("/v1/sessions", json={"session_id": "s"})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "session_already_exists")
    assert (await running.http.get("/v1/sessions")).json()["data"] == []
    (listed,) = (await running.http.get("/v1/sessions", params={"status": "expired"})).json()["data"]
    assert (listed["id"], listed["status"], listed["ttl_s"]) == ("s", "expired", TTL_S)
    assert listed["expires_at"] == listed["created_at"] + TTL_S


async def test_due_sessions_are_not_listed_as_open(running: Running, clock: FakeClock) -> None:
    """A page is full also where many sessions on its way wait for the sweeper."""
    for number in range(30):
        await running.http.post("/v1/sessions", json={"session_id": f"due{number}", "ttl_s": TTL_S})
    await running.http.post("/v1/sessions", json={"session_id": "old", "ttl_s": TTL_S})
    for number in range(30):
        await running.http.post("/v1/sessions", json={"session_id": f"more{number}", "ttl_s": TTL_S})
    await running.http.post("/v1/sessions", json={"session_id": "older"})
    clock.advance(TTL_S - 1)
    await running.http.post("/v1/sessions/old/messages", json=USER)
    clock.advance(1)
    page = (await running.http.get("/v1/sessions", params={"limit": 2, "order": "asc"})).json()
    assert ([session["id"] for session in page["data"]], page["has_more"]) == (["old", "older"], False)
    page = (await running.http.get("/v1/sessions", params={"limit": 1, "order": "asc"})).json()
    assert ([session["id"] for session in page["data"]], page["has_more"]) == (["old"], True)
    assert await running.use_cases.expire_sessions.run() == 61
    assert len((await running.http.get("/v1/sessions")).json()["data"]) == 2


async def test_the_sweeper_moves_what_was_used(
    running: Running, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session in use costs one look at its last header for each time to live, and is not folded for that."""
    clock.advance(TTL_S - 1)
    await running.http.post("/v1/sessions/s/messages", json=USER)
    clock.advance(TTL_S - 1)

    async def must_not_be_folded(*_: Any) -> None:
        raise AssertionError("its last event is young enough")

    with monkeypatch.context() as patch:
        patch.setattr(Sessions, "load", must_not_be_folded)
        assert await running.use_cases.expire_sessions.run() == 0
    assert await running.store.directory.due(clock.now_us(), after=None, limit=9) == []
    clock.advance(1)
    assert await running.use_cases.expire_sessions.run() == 1


async def test_a_long_answer_finds_its_session_open(clock: FakeClock) -> None:
    """A completion that takes longer than the session may live is not cut off, and counts as use until its end."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def held(_: int) -> None:
        reached.set()
        await go_on.wait()

    store = MemoryEventStore(clock=clock, ids=RandomIds())
    async with running_server(Script(before_delta=held), clock=clock, store=store) as running:
        await running.http.post("/v1/sessions", json={"session_id": "s", "ttl_s": 1})
        chat = asyncio.create_task(running.chat(session_id="s"))
        await asyncio.wait_for(reached.wait(), 5)
        clock.advance(30)
        assert await running.use_cases.expire_sessions.run() == 0
        assert (await running.http.get("/v1/sessions/s")).json()["expires_at"] is None
        assert [session["id"] for session in (await running.http.get("/v1/sessions")).json()["data"]] == ["s"]
        go_on.set()
        assert (await chat).status_code == 200
        assert (await running.http.get("/v1/sessions/s")).status_code == 200
        clock.advance(1)
        assert (await running.http.get("/v1/sessions/s")).status_code == 410
        assert await running.use_cases.expire_sessions.run() == 1


async def test_expiry_and_use_race_to_one_of_two_ends(clock: FakeClock) -> None:
    """Two sweepers against writers at the moment of expiry: used and alive, or expired and refused; never both."""
    store = MemoryEventStore(clock=clock, ids=RandomIds())
    async with running_server(clock=clock, store=store) as running, running_server(clock=clock, store=store) as other:
        ids = [f"s{number}" for number in range(40)]
        for session_id in ids:
            await running.http.post("/v1/sessions", json={"session_id": session_id, "ttl_s": TTL_S})
        clock.advance(TTL_S - 1)

        async def use(number: int) -> int:
            if number == 20:
                clock.advance(1)
            server = running if number % 2 else other
            return (await server.http.post(f"/v1/sessions/{ids[number]}/messages", json=USER)).status_code

        async def sweep(server: Running) -> None:
            for _ in range(20):
                await server.use_cases.expire_sessions.run()
                await asyncio.sleep(0.001)

        statuses: list[int] = []
        for numbers in (range(10), range(10, 30), range(30, 40)):
            used, *_ = await asyncio.gather(asyncio.gather(*map(use, numbers)), sweep(running), sweep(other))
            statuses += used
        assert (set(statuses[:10]), set(statuses[30:])) == ({201}, {410})
        assert set(statuses) == {201, 410}
        for session_id, status in zip(ids, statuses, strict=True):
            types = [recorded.header.type for recorded in await store.read_stream("default", f"session-{session_id}")]
            assert types in (
                [["SessionStarted", "MessageAppended"]]
                if status == 201
                else [["SessionStarted", "SessionExpired"], ["SessionStarted"]]
            )
        await running.use_cases.expire_sessions.run()
        expired = [json.loads(entry.payload or b"")["session_id"] for entry in await running.log("SessionExpired")]
        assert sorted(expired) == sorted(
            session_id for session_id, status in zip(ids, statuses, strict=True) if status == 410
        )


async def test_the_sweeper_goes_on_after_an_outage(
    running: Running, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is away ends one sweep, and the next one does its work."""
    clock.advance(TTL_S)

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryEventStore, "append", away)
        with pytest.raises(StoreUnavailable):
            await running.use_cases.expire_sessions.run()
    assert await running.use_cases.expire_sessions.run() == 1
