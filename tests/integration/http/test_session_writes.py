"""Writing to sessions over HTTP: changes, metadata's limits, repeated requests, and writers that race."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manent.adapters.http.wire_responses import Session
from manent.adapters.inference.script import Script
from manent.adapters.store.memory import MemoryEventStore
from manent.app.system import RandomIds, SystemClock
from tests.support.http import USER, running_server

SESSION = "/v1/sessions/s"


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_session_is_changed(prefix: str) -> None:
    """What is named is replaced, what is absent stays, null metadata stays, a null ttl_s is for ever."""
    async with running_server() as running:
        path = f"{prefix}/sessions/s"
        created = await running.http.post(
            f"{prefix}/sessions", json={"session_id": "s", "metadata": {"a": "1"}, "ttl_s": 60}
        )
        assert created.headers["etag"] == '"1"'
        for number, (body, metadata, ttl_s) in enumerate(
            (
                ({"metadata": {"b": "2"}}, {"b": "2"}, 60),
                ({"ttl_s": 90}, {"b": "2"}, 90),
                ({"metadata": None, "ttl_s": None}, {"b": "2"}, None),
                ({"metadata": {}, "ttl_s": 5}, {}, 5),
            )
        ):
            changed = await running.http.post(path, json=body)
            assert (changed.status_code, changed.headers["etag"]) == (200, f'"{number + 2}"')
            session = Session.model_validate_json(changed.content, strict=True)
            assert (session.metadata, session.ttl_s, session.version) == (metadata, ttl_s, number + 2)
            assert (await running.http.get(path)).json() == changed.json()
        for nothing in ({}, {"metadata": None}):
            same = await running.http.post(path, json=nothing)
            assert (same.status_code, same.headers["etag"]) == (200, '"5"')
        assert len(await running.log("SessionMetadataChanged")) == 4


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"metadata": {str(number): "" for number in range(17)}}, "invalid_value", "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "invalid_value", "metadata"),
        ({"metadata": {"k": "v" * 513}}, "invalid_value", "metadata"),
        ({"metadata": {"k": 5}}, "invalid_type", "metadata.k"),
        ({"metadata": {"k": None}}, "invalid_type", "metadata.k"),
        ({"metadata": {"k": {"nested": "x"}}}, "invalid_type", "metadata.k"),
        ({"metadata": ["k"]}, "invalid_type", "metadata"),
        ({"metadata": "k"}, "invalid_type", "metadata"),
        ({"metadata": {"k": "a\0b"}}, "invalid_value", "metadata"),
        ({"metadata": {"a\0b": "v"}}, "invalid_value", "metadata"),
        ({"ttl_s": 0}, "invalid_value", "ttl_s"),
        ({"ttl_s": 10**9}, "invalid_value", "ttl_s"),
        ({"ttl_s": "60"}, "invalid_type", "ttl_s"),
        ({"ttl_s": 1.5}, "invalid_type", "ttl_s"),
        ({"ttl_s": True}, "invalid_type", "ttl_s"),
    ],
)
async def test_metadata_and_ttl_keep_to_their_limits(body: dict[str, Any], code: str, param: str) -> None:
    """OpenAI's 16, 64 and 512, strings only and no NUL; for a new session and for a change of one."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s"})
        for path in ("/v1/sessions", SESSION):
            answer = await running.http.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
            assert answer.json()["error"]["param"] == param
        assert len(await running.log()) == 1


async def test_metadata_at_its_limits_is_kept() -> None:
    """Sixteen pairs of the longest, counted in characters and not in bytes."""
    metadata = {f"{number:x}".rjust(64, "🙂"): f"{number:x}".rjust(512, "🙃") for number in range(16)}
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s", "metadata": metadata})
        assert (await running.http.get(SESSION)).json()["metadata"] == metadata
        (listed,) = (await running.http.get("/v1/sessions")).json()["data"]
        assert listed["metadata"] == metadata


async def test_a_change_knows_no_other_parameter() -> None:
    """An id or messages are not changed this way, and a body is asked for."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s"})
        for name in ("session_id", "messages", "owner", "ttl"):
            answer = await running.http.post(SESSION, json={name: None})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
        assert (await running.http.post(SESSION)).status_code == 415


async def test_one_of_two_writers_wins_a_version() -> None:
    """Twenty writers that read the same version: each round one is let through, the others are told to read again."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s", "metadata": {"n": "0"}})

        async def count_up() -> int:
            refused = 0
            while True:
                read = await running.http.get(SESSION)
                metadata = {"n": str(int(read.json()["metadata"]["n"]) + 1)}
                wrote = await running.http.post(
                    SESSION, json={"metadata": metadata}, headers={"If-Match": read.headers["etag"]}
                )
                if wrote.status_code == 200:
                    assert wrote.json()["metadata"] == metadata
                    return refused
                assert (wrote.status_code, wrote.json()["error"]["code"]) == (412, "precondition_failed")
                refused += 1

        refused = await asyncio.gather(*(count_up() for _ in range(20)))
        assert sum(refused) > 0
        assert (await running.http.get(SESSION)).json()["metadata"] == {"n": "20"}


async def test_a_precondition_guards_every_write() -> None:
    """Change, message, chat (streamed or not), deletion: at another version none of them happens."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s", "messages": [USER]})
        for stale in ('"1"', 'W/"2"', '"3"'):
            headers = {"If-Match": stale}
            for answer in (
                await running.http.post(SESSION, json={"ttl_s": 5}, headers=headers),
                await running.http.post(f"{SESSION}/messages", json=USER, headers=headers),
                await running.http.delete(SESSION, headers=headers),
                *[
                    await running.http.post(
                        "/v1/chat/completions",
                        json={"model": "default", "messages": [USER], "session_id": "s", "stream": stream},
                        headers=headers,
                    )
                    for stream in (False, True)
                ],
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == (412, "precondition_failed")
                assert "is at version 2" in answer.json()["error"]["message"]
        assert len(await running.log()) == 2
        chat = {"model": "default", "messages": [{"role": "user", "content": "more"}], "session_id": "s"}
        answered = await running.http.post("/v1/chat/completions", json=chat, headers={"If-Match": '"2"'})
        assert answered.status_code == 200
        version = (await running.http.get(SESSION)).headers["etag"]
        assert (await running.http.delete(SESSION, headers={"If-Match": version})).status_code == 200


async def test_a_precondition_on_what_does_not_exist() -> None:
    """Any version is one that exists: a chat does not start a session then, and without one it means nothing."""
    async with running_server() as running:
        for value in ("*", '"1"'):
            chat = {"model": "default", "messages": [USER], "session_id": "new"}
            answer = await running.http.post("/v1/chat/completions", json=chat, headers={"If-Match": value})
            assert (answer.status_code, answer.json()["error"]["code"]) == (412, "precondition_failed")
            gone = await running.http.post("/v1/sessions/new", json={"ttl_s": 5}, headers={"If-Match": value})
            assert (gone.status_code, gone.json()["error"]["code"]) == (404, "session_not_found")
        chat = {"model": "default", "messages": [USER]}
        answer = await running.http.post("/v1/chat/completions", json=chat, headers={"If-Match": "*"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "If-Match")
        assert await running.log() == []


async def test_a_deletion_of_a_version_cancels_what_runs_at_it() -> None:
    """The cancelled completion's own end is no other version; and a stale deletion cancels nothing."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def held(_: int) -> None:
        reached.set()
        await never.wait()

    async with running_server(Script(before_delta=held)) as running:
        chat = asyncio.create_task(running.chat(session_id="s"))
        await asyncio.wait_for(reached.wait(), 5)
        version = (await running.http.get(SESSION)).headers["etag"]
        stale = await running.http.delete(SESSION, headers={"If-Match": '"1"'})
        assert stale.status_code == 412
        assert not chat.done()
        assert (await running.http.delete(SESSION, headers={"If-Match": version})).status_code == 200
        assert (await chat).status_code == 409


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/sessions", {"metadata": {"k": "v"}, "messages": [USER]}),
        (SESSION, {"metadata": {"k": "v"}}),
        (f"{SESSION}/messages", USER),
    ],
)
async def test_a_repeated_request_writes_once(path: str, body: dict[str, Any]) -> None:
    """The same key has the same answer, tag and all: at once, later, beside a condition that no longer holds."""
    store = MemoryEventStore(clock=SystemClock(), ids=RandomIds())
    async with running_server(store=store) as running, running_server(store=store) as other:
        await running.http.post("/v1/sessions", json={"session_id": "s"})
        headers = {"Idempotency-Key": "k1", "If-Match": '"1"'}
        answers = await asyncio.gather(
            *(server.http.post(path, json=body, headers=headers) for server in (running, other) for _ in range(5))
        )
        assert {answer.is_success for answer in answers} == {True}
        assert len({answer.content for answer in answers}) == 1
        session_id = answers[0].headers.get("x-session-id", "s")
        before = len(await running.log())
        for _ in range(2):
            await running.http.post(f"/v1/sessions/{session_id}", json={"metadata": {"later": "x"}, "ttl_s": 900})
            await running.http.post(f"/v1/sessions/{session_id}/messages", json=USER)
        again = await other.http.post(f"/api{path}", json=body, headers=headers)
        assert (again.status_code, again.content) == (answers[0].status_code, answers[0].content)
        assert again.headers["etag"] == answers[0].headers["etag"]
        assert len(await running.log()) == before + 4
        wrong = await running.http.post(path, json={**body, "x": 1} if "role" in body else {}, headers=headers)
        assert wrong.status_code in {400, 409}
        another = await running.http.post(f"{SESSION}/messages", json={**USER, "content": "y"}, headers=headers)
        assert (another.status_code, another.json()["error"]["code"]) == (409, "idempotency_conflict")
