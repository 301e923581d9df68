"""Sessions over HTTP: their life, their pages, and ids that nobody should send."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manent.adapters.http.wire_responses import Session, SessionDeleted, SessionMessageList
from manent.adapters.inference.script import Script
from manent.adapters.store.memory import MemoryEventStore
from manent.domain.errors import StoreUnavailable
from manent.domain.records import RecordedEvent
from tests.support.http import USER, client, running_server


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_session_lives_and_dies(prefix: str) -> None:
    """Started, read, conversed in, deleted; then its id answers 404 and stays taken."""
    async with running_server() as running:
        http = running.http
        messages = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ]
        started = await http.post(
            f"{prefix}/sessions",
            json={"session_id": "s:1", "metadata": {"k": "v"}, "ttl_s": 60, "messages": messages},
        )
        assert started.status_code == 201
        assert started.headers["x-session-id"] == "s:1"
        session = Session.model_validate_json(started.content, strict=True)
        assert (session.id, session.metadata, session.ttl_s, session.message_count) == ("s:1", {"k": "v"}, 60, 2)
        assert (await http.get(f"{prefix}/sessions/s%3A1")).json() == started.json()

        page = SessionMessageList.model_validate_json((await http.get(f"{prefix}/sessions/s:1/messages")).content)
        assert [(message.role, message.content) for message in page.data] == [("system", "be brief"), ("user", "ab")]
        assert [part.model_dump().get("text") for part in page.data[1].content_parts or []] == ["a", "b"]

        deleted = await http.delete(f"{prefix}/sessions/s:1")
        assert deleted.status_code == 200
        assert SessionDeleted.model_validate_json(deleted.content).id == "s:1"
        for path in ("", "/messages"):
            gone = await http.get(f"{prefix}/sessions/s:1{path}")
            assert (gone.status_code, gone.json()["error"]["code"]) == (404, "session_not_found")
        again = await http.delete(f"{prefix}/sessions/s:1")
        assert (again.status_code, again.json()["error"]["code"]) == (404, "session_closed")
        taken = await http.post(f"{prefix}/sessions", json={"session_id": "s:1"})
        assert (taken.status_code, taken.json()["error"]["code"]) == (409, "session_already_exists")
        assert taken.headers["x-should-retry"] == "false"
        chat = await running.chat(session_id="s:1")
        assert (chat.status_code, chat.json()["error"]["code"]) == (404, "session_closed")


async def test_an_empty_request_starts_a_session_with_an_id_of_its_own() -> None:
    """Nothing needs to be said to start a session, with a JSON body or without one."""
    async with running_server() as running:
        bare = await running.http.post("/v1/sessions")
        empty = await running.http.post("/v1/sessions", json={})
        assert bare.status_code == empty.status_code == 201
        assert bare.json()["id"] != empty.json()["id"]
        assert bare.json()["id"].startswith("sess_")


async def test_messages_come_in_pages() -> None:
    """Following last_id reads every message once, in both orders, and has_more says when to stop."""
    async with running_server() as running:
        said = [{"role": "user", "content": str(number)} for number in range(45)]
        await running.http.post("/v1/sessions", json={"session_id": "s", "messages": said})
        for order, expected in (("asc", said), ("desc", said[::-1])):
            read: list[str] = []
            query: dict[str, Any] = {"order": order}
            while True:
                page = (await running.http.get("/v1/sessions/s/messages", params=query)).json()
                read += [message["content"] for message in page["data"]]
                assert page["first_id"] == page["data"][0]["id"]
                if not page["has_more"]:
                    break
                assert len(page["data"]) == 20
                query["after"] = page["last_id"]
            assert read == [message["content"] for message in expected]


async def test_a_page_behind_the_last_message_is_empty() -> None:
    """An empty page has no first and no last id, and nothing behind it."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s"})
        page = (await running.http.get("/v1/sessions/s/messages")).json()
        assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 101}, "limit"),
        ({"limit": 0}, "limit"),
        ({"order": "random"}, "order"),
        ({"after": "msg_unknown"}, "after"),
        ({"before": "x"}, "before"),
    ],
)
async def test_a_wrong_page_is_refused(query: dict[str, Any], param: str) -> None:
    """An unknown ``after`` is never page 1: a client that follows it would run in a circle."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s", "messages": [USER]})
        answer = await running.http.get("/v1/sessions/s/messages", params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "raw_id",
    [
        "%00",
        "a%00b",
        "%2e%2e%2f%2e%2e",
        "a%2Fb",
        "%E2%98%83",
        "%ff%fe",
        "x" * 300,
        "a%0d%0ab",
        "%20",
        "%F0%9F%92%A9",
        "-x",
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/messages"), ("DELETE", "")])
async def test_a_strange_id_in_the_address_is_not_found(
    raw_id: str, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No address, however encoded, is anything but a 404 for a session that cannot be, and no store is asked."""

    async def must_not_be_asked(*_: Any, **__: Any) -> list[RecordedEvent]:
        raise StoreUnavailable("a NUL is no text to PostgreSQL")

    monkeypatch.setattr(MemoryEventStore, "read_stream", must_not_be_asked)
    async with running_server() as running:
        answer = await running.http.request(method, f"/v1/sessions/{raw_id}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")


async def test_a_session_is_deleted_under_a_running_completion() -> None:
    """Deleting cancels what runs in the session; its client is told, and the log has one terminal event."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def held(_: int) -> None:
        reached.set()
        await never.wait()

    async with running_server(Script(before_delta=held)) as running:
        chat = asyncio.create_task(running.chat(session_id="s"))
        await asyncio.wait_for(reached.wait(), 5)
        assert (await running.http.delete("/v1/sessions/s")).status_code == 200
        answer = await chat
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cancelled")
        assert answer.headers["x-should-retry"] == "false"


async def test_the_log_is_for_auditors() -> None:
    """Without the scope the log is a 403, and sessions still work."""
    async with running_server(principal=client("ann")) as running:
        refused = await running.http.get("/v1/events")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
        assert refused.json()["error"]["type"] == "permission_error"
        assert (await running.http.post("/v1/sessions")).json()["owner"] == "ann"
