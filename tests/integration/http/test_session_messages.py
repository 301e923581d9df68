"""Messages of a session over HTTP: added, read one by one, paged; also where there are a hundred thousand."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from manent.adapters.http.wire_responses import SessionMessage
from manent.adapters.inference.script import Script
from manent.adapters.store.memory import MemoryEventStore
from manent.app.system import RandomIds, SystemClock
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.events import MessageAppended, SessionStarted
from manent.domain.records import EventContext
from tests.support.conversation import message
from tests.support.http import USER, Running, client, running_server

MESSAGES = "/v1/sessions/s/messages"


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_message_is_added_and_read(prefix: str) -> None:
    """Any role that messages have, text or parts, with a name; it is the last of the conversation, and no answer."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s"})
        sent: list[dict[str, Any]] = [
            {"role": "system", "content": "be brief"},
            {"role": "developer", "content": "very"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ann"},
            {"role": "assistant", "content": "yes", "refusal": None, "tool_calls": []},
        ]
        for number, one in enumerate(sent):
            added = await running.http.post(f"{prefix}/sessions/s/messages", json=one)
            assert (added.status_code, added.headers["etag"]) == (201, f'"{number + 2}"')
            told = SessionMessage.model_validate_json(added.content, strict=True)
            read = await running.http.get(f"{prefix}/sessions/s/messages/{told.id}")
            assert (read.status_code, read.json(), read.headers["etag"]) == (200, added.json(), added.headers["etag"])
        page = (await running.http.get(f"{prefix}/sessions/s/messages")).json()["data"]
        assert [(one["role"], one["content"], one["name"]) for one in page] == [
            ("system", "be brief", None),
            ("system", "very", None),
            ("user", "ab", "ann"),
            ("assistant", "yes", None),
        ]
        assert await running.log("CompletionRequested") == []
        appended = await running.log("MessageAppended")
        assert {entry.header.actor for entry in appended} == {"local"}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"role": "user"}, "missing_required_parameter", "content"),
        ({"content": "x"}, "missing_required_parameter", "role"),
        ({"role": "tool", "content": "x", "tool_call_id": "c"}, "invalid_value", "messages"),
        ({"role": "robot", "content": "x"}, "invalid_value", "role"),
        ({"role": "user", "content": 5}, "invalid_type", "content"),
        ({"role": "user", "content": []}, "invalid_value", "content"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "invalid_value",
            "content[0].image_url.url",
        ),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, "invalid_type", "content[0].text"),
        ({"role": "user", "content": "x", "metadata": {}}, "unknown_parameter", "metadata"),
        ({"role": "assistant", "content": "x", "tool_calls": [{}]}, "missing_required_parameter", "tool_calls[0].id"),
        ({"role": "user", "content": "x", "name": "a b"}, "invalid_value", "name"),
    ],
)
async def test_a_wrong_message_is_refused(body: dict[str, Any], code: str, param: str) -> None:
    """The same words as for a chat, with the path in this body."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s"})
        answer = await running.http.post(MESSAGES, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
        assert answer.json()["error"]["param"] == param
        for raw in (b"", b"[]", b'{"role":"user","content":"\\ud800"}'):
            refused = await running.http.post(MESSAGES, content=raw, headers={"content-type": "application/json"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_json")
        assert (await running.http.get("/v1/sessions/s")).json()["message_count"] == 0


@pytest.mark.parametrize("message_id", ["msg_none", "%00", "a%2Fb", "%ff", "x" * 300, "%E2%98%83", "1"])
async def test_an_unknown_message_is_not_found(message_id: str) -> None:
    """Whatever stands in the address."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s", "messages": [USER]})
        answer = await running.http.get(f"{MESSAGES}/{message_id}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "message_not_found")


async def test_a_message_that_was_revised_away_is_gone() -> None:
    """The conversation as it stands is what is read; the log keeps the rest."""
    async with running_server() as running:
        await running.chat(session_id="s")
        page = (await running.http.get(MESSAGES)).json()
        answer_id = page["last_id"]
        history = [USER, {"role": "assistant", "content": "another answer"}, {"role": "user", "content": "and?"}]
        assert (await running.chat(session_id="s", messages=history)).status_code == 200
        assert (await running.http.get(f"{MESSAGES}/{answer_id}")).status_code == 404
        assert (await running.http.get(f"{MESSAGES}/{page['first_id']}")).status_code == 200
        assert (await running.http.get(MESSAGES, params={"after": answer_id})).status_code == 400


async def test_a_full_last_page_has_nothing_behind_it() -> None:
    """A reader that follows has_more asks for no empty page, in either order."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json={"session_id": "s", "messages": [USER] * 6})
        for order in ("asc", "desc"):
            query = {"limit": 3, "order": order}
            first = (await running.http.get(MESSAGES, params=query)).json()
            last = (await running.http.get(MESSAGES, params={**query, "after": first["last_id"]})).json()
            assert ([len(first["data"]), first["has_more"]], [len(last["data"]), last["has_more"]]) == (
                [3, True],
                [3, False],
            )
            behind = (await running.http.get(MESSAGES, params={**query, "after": last["last_id"]})).json()
            assert (behind["data"], behind["has_more"]) == ([], False)


async def test_messages_of_others_are_not_found() -> None:
    """Reading and adding, with an id that is known or not."""
    store = MemoryEventStore(clock=SystemClock(), ids=RandomIds())
    async with running_server(principal=client("ann"), store=store) as running:
        await running.http.post("/v1/sessions", json={"session_id": "s", "messages": [USER]})
        first_id = (await running.http.get(MESSAGES)).json()["first_id"]
    async with running_server(principal=client("bob"), store=store) as running:
        for answer in (
            await running.http.post(MESSAGES, json=USER),
            await running.http.post("/v1/sessions/s", json={"ttl_s": 5}),
            await running.http.get(f"{MESSAGES}/{first_id}"),
            await running.http.delete("/v1/sessions/s", headers={"If-Match": '"9"'}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")


async def test_a_message_waits_for_the_answer_before_it() -> None:
    """Added while a completion runs, it stands behind the answer, or is refused when that takes too long."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def held(_: int) -> None:
        reached.set()
        await go_on.wait()

    async with running_server(Script(before_delta=held), session_wait_s=0.2) as running:
        chat = asyncio.create_task(running.chat(session_id="s"))
        await asyncio.wait_for(reached.wait(), 5)
        busy = await running.http.post(MESSAGES, json=USER)
        assert (busy.status_code, busy.json()["error"]["code"]) == (409, "session_busy")
        adding = asyncio.create_task(running.http.post(MESSAGES, json={"role": "user", "content": "behind"}))
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await chat).status_code == 200
        assert (await adding).status_code == 201
        page = (await running.http.get(MESSAGES)).json()["data"]
        assert [one["role"] for one in page] == ["user", "assistant", "user"]
        assert page[-1]["content"] == "behind"


async def large_session(running: Running, session_id: str, count: int) -> None:
    """Record a session of ``count`` messages, and have it read once."""
    context = EventContext(tenant=LOCAL_OPERATOR.tenant, actor=LOCAL_OPERATOR.subject)
    stream = f"session-{session_id}"
    started = SessionStarted(
        session_id=session_id,
        tenant=LOCAL_OPERATOR.tenant,
        owner=LOCAL_OPERATOR.subject,
        metadata={},
        ttl_s=None,
        parent=None,
        started_at_us=1,
    )
    await running.store.append(stream, [started], expected_version=0, context=context)
    for first in range(0, count, 5000):
        events = [
            MessageAppended(
                session_id=session_id,
                message=message("user", f"message {number}", f"{session_id}_{number}"),
                appended_by="local",
                completion_id=None,
                appended_at_us=1,
            )
            for number in range(first, min(first + 5000, count))
        ]
        await running.store.append(stream, events, expected_version=1 + first, context=context)
    path = f"/v1/sessions/{session_id}"
    answer = await running.http.get(path, timeout=60)
    assert answer.json()["message_count"] == count
    await running.http.get(f"{path}/messages", params={"after": f"{session_id}_0"}, timeout=60)


async def seconds(running: Running, method: str, path: str, **options: Any) -> float:
    """The quickest of several requests."""
    best = float("inf")
    for _ in range(15):
        begun = time.perf_counter()
        answer = await running.http.request(method, path, **options)
        best = min(best, time.perf_counter() - begun)
        assert answer.is_success
    return best


async def test_a_page_of_a_large_session_costs_what_one_of_a_small_does() -> None:
    """At 100,000 messages a page from anywhere, in either order, and an added message cost what they do at 1,000."""
    async with running_server() as running:
        await large_session(running, "small", 1_000)
        await large_session(running, "large", 100_000)
        for options in (
            {"limit": 100},
            {"limit": 100, "order": "desc"},
            {"limit": 100, "after": "{}_500"},
            {"limit": 100, "after": "{}_500", "order": "desc"},
        ):
            small, large = [
                await seconds(
                    running,
                    "GET",
                    f"/v1/sessions/{name}/messages",
                    params={key: str(value).format(name) for key, value in options.items()},
                )
                for name in ("small", "large")
            ]
            assert large < 4 * small, options
        small, large = [
            await seconds(running, "POST", f"/v1/sessions/{name}/messages", json=USER) for name in ("small", "large")
        ]
        assert large < 4 * small
        page = (await running.http.get("/v1/sessions/large/messages", params={"after": "large_99998"})).json()
        assert (page["data"][0]["id"], len(page["data"]), page["has_more"]) == ("large_99999", 16, False)
