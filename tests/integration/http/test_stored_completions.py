"""Stored chat completions: what is stored, who sees it, pages, filters, updates, deletions, messages."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionDeleted

from manent.adapters.http.wire_stored import StoredChatCompletion, StoredCompletionList, StoredMessageList
from manent.adapters.inference.script import Script, Thought
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.store.memory import MemoryEventStore
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.system import RandomIds, SystemClock
from manent.domain.access import Principal, Scope
from manent.domain.errors import EngineUnavailable
from manent.domain.generation import ModelCard
from manent.domain.messages import ToolCall
from tests.support.database import empty_database
from tests.support.hooks import Held
from tests.support.http import USER, Running, running_server

ANN = Principal(tenant="t", subject="ann", scopes=frozenset({Scope.CHAT, Scope.SESSIONS}))
BOB = Principal(tenant="t", subject="bob", scopes=frozenset({Scope.ADMIN, Scope.AUDIT}))
CARDS = [
    ModelCard(model_id=name, context_length=4096, created_at_s=0, aliases=aliases)
    for name, aliases in (("one", ("default",)), ("two", ()))
]


async def said(running: Running, **members: Any) -> str:
    """The id of a new completion."""
    answer = await running.chat(**members)
    assert answer.status_code == 200, answer.text
    completion_id: str = answer.json()["id"]
    return completion_id


async def page(running: Running, **query: Any) -> StoredCompletionList:
    """A page, checked against its model."""
    answer = await running.http.get("/v1/chat/completions", params=query)
    assert answer.status_code == 200, answer.text
    found = StoredCompletionList.model_validate_json(answer.content, strict=True)
    ids = [one.id for one in found.data]
    assert (found.first_id, found.last_id) == ((ids[0], ids[-1]) if ids else (None, None))
    return found


async def ids(running: Running, **query: Any) -> list[str]:
    """The ids on a page."""
    return [one.id for one in (await page(running, **query)).data]


async def test_what_was_asked_to_be_stored_is_found_as_it_was_answered() -> None:
    """store: true, and what is said in a session; with all that the answer said, and its metadata."""
    call = ToolCall(id="call_1", name="f", arguments="{}")
    engine = ScriptedEngine(Script(pieces=(Thought("why"), "Yes", call)))
    async with running_server(engine=engine, principal=ANN) as running:
        answered = (await running.chat(store=True, n=2, logprobs=True, metadata={"k": "v"})).json()
        in_session = await said(running, session_id="s")
        await said(running)
        assert await ids(running) == [answered["id"], in_session]
        for prefix in ("/v1", "/api/v1"):
            found = await running.http.get(f"{prefix}/chat/completions/{answered['id']}")
            StoredChatCompletion.model_validate_json(found.content, strict=True)
            assert found.json() == {**answered, "metadata": {"k": "v"}}
        assert answered["choices"][0]["message"]["reasoning"] == "why"
        assert answered["choices"][0]["message"]["reasoning_content"] == "why"


async def test_pages_follow_each_other_in_both_orders_and_by_every_filter() -> None:
    """The oldest first by default; every completion is on one page, and an unknown place is refused."""
    engine = ScriptedEngine(cards=CARDS)
    async with running_server(engine=engine, principal=ANN) as running:
        made = [
            await said(running, store=True, model="two" if number % 2 else "default", metadata={"n": str(number % 3)})
            for number in range(5)
        ]
        assert await ids(running) == made
        assert await ids(running, order="desc") == made[::-1]
        first = await page(running, limit=2)
        assert [one.id for one in first.data] == made[:2]
        assert first.has_more
        rest = await page(running, limit=3, after=first.last_id)
        assert ([one.id for one in rest.data], rest.has_more) == (made[2:], False)
        assert await ids(running, order="desc", after=made[3], limit=2) == [made[2], made[1]]
        assert await ids(running, model="two") == made[1::2]
        assert await ids(running, model="default") == made[::2]
        assert await ids(running, model="gone") == []
        assert await ids(running, **{"metadata[n]": "0"}) == [made[0], made[3]]
        assert await ids(running, model="one", **{"metadata[n]": "0"}) == [made[0]]
        assert await ids(running, **{"metadata[n]": "0", "metadata[m]": "0"}) == []
        refused = await running.http.get("/v1/chat/completions", params={"after": "chatcmpl-unknown"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "after")


async def test_metadata_is_replaced_and_deleted_is_gone() -> None:
    """Both are events; a second deletion finds nothing, a page may still begin behind what was deleted."""
    async with running_server(principal=ANN) as running:
        one, two = [await said(running, store=True, metadata={"a": "1"}) for _ in range(2)]
        address = f"/v1/chat/completions/{one}"
        for metadata in ({"b": "2"}, {"c": "3"}):
            changed = await running.http.post(address, json={"metadata": metadata})
            assert (changed.status_code, changed.json()["metadata"]) == (200, metadata)
        assert (await running.http.get(address)).json()["metadata"] == {"c": "3"}
        assert await ids(running, **{"metadata[a]": "1"}) == [two]
        assert await ids(running, **{"metadata[c]": "3"}) == [one]
        assert (await running.http.post(address, json={"metadata": None})).json()["metadata"] == {}
        for body in ({}, {"metadata": {"x": 1}}, {"other": 1}, {"metadata": {"x": "y" * 513}}):
            assert (await running.http.post(address, json=body)).status_code == 400
        gone = await running.http.delete(address)
        assert gone.json() == {"id": one, "object": "chat.completion.deleted", "deleted": True}
        for method, path in (("DELETE", address), ("GET", address), ("GET", f"{address}/messages")):
            assert (await running.http.request(method, path)).status_code == 404
        assert (await running.http.post(address, json={"metadata": {}})).status_code == 404
        assert await ids(running, after=one) == [two]
        assert [len(await running.log(f"StoredCompletion{what}")) for what in ("Changed", "Deleted")] == [3, 1]
        assert len(await running.log("CompletionGenerated")) == 2


async def test_nobody_else_sees_them() -> None:
    """Not even an administrator: to everybody but its owner a stored completion is not there."""
    store = MemoryEventStore(clock=SystemClock(), ids=RandomIds())
    async with running_server(principal=ANN, store=store) as running:
        one = await said(running, store=True)
    async with running_server(principal=BOB, store=store) as running:
        assert await ids(running) == []
        address = f"/v1/chat/completions/{one}"
        answers = [
            await running.http.get(address),
            await running.http.get(f"{address}/messages"),
            await running.http.delete(address),
            await running.http.post(address, json={"metadata": {}}),
        ]
        assert [(one.status_code, one.json()["error"]["code"]) for one in answers] == [
            (404, "completion_not_found")
        ] * 4
        assert (await running.http.get("/v1/chat/completions", params={"after": one})).status_code == 400


async def test_the_messages_are_those_that_were_answered() -> None:
    """With ids, in pages, both orders; in a session all that the model saw."""
    async with running_server(principal=ANN) as running:
        system = {"role": "system", "content": "be kind"}
        parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
        one = await said(running, store=True, messages=[system, USER, parts])
        address = f"/v1/chat/completions/{one}/messages"
        whole = await running.http.get(address)
        found = StoredMessageList.model_validate_json(whole.content).data
        assert [(message.role, message.content) for message in found] == [
            ("system", "be kind"),
            ("user", "hello"),
            ("user", "ab"),
        ]
        assert found[2].content_parts == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        second = (await running.http.get(address, params={"limit": 1, "after": found[0].id})).json()
        assert ([message["id"] for message in second["data"]], second["has_more"]) == ([found[1].id], True)
        last = (await running.http.get(address, params={"limit": 2, "order": "desc"})).json()
        assert [message["id"] for message in last["data"]] == [found[2].id, found[1].id]
        assert (await running.http.get(address, params={"after": "msg_x"})).status_code == 400
        await said(running, session_id="s")
        again = await said(running, session_id="s", messages=[{"role": "user", "content": "more"}])
        seen = (await running.http.get(f"/v1/chat/completions/{again}/messages")).json()["data"]
        assert [message["role"] for message in seen] == ["user", "assistant", "user"]


async def test_a_deleted_session_takes_its_completions_along() -> None:
    """What the session does not show any more is not shown by the other door either."""
    async with running_server(principal=ANN) as running:
        one = await said(running, session_id="s", metadata={"k": "v"})
        other = await said(running, store=True)
        await running.http.delete("/v1/sessions/s")
        assert await ids(running) == [other]
        assert await ids(running, **{"metadata[k]": "v"}) == []
        assert (await running.http.get(f"/v1/chat/completions/{one}")).status_code == 404


async def test_they_survive_a_restart(tmp_path: Path) -> None:
    """On a database, with another process's store over the same file."""
    path = tmp_path / "manent.db"
    empty_database(path)
    await ensure_log(path, RandomIds())
    for _ in range(2):
        store = SQLiteEventStore(path, clock=SystemClock(), ids=RandomIds())
        try:
            async with running_server(principal=ANN, store=store) as running:
                before = await ids(running)
                made = await said(running, store=True, metadata={"k": "v"})
                assert await ids(running, **{"metadata[k]": "v"}) == [*before, made]
        finally:
            await store.aclose()
    assert len(before) == 1


async def test_the_official_client_finds_them() -> None:
    """list, retrieve, update, delete and messages of openai-python, its pages followed to the end."""
    async with running_server(principal=ANN) as running, running.openai() as client:
        made = [await said(running, store=True, metadata={"k": "v"}) for _ in range(5)]
        stored = client.chat.completions
        found = [one async for one in stored.list(limit=2, metadata={"k": "v"}, model="default", order="desc")]
        assert [one.id for one in found] == made[::-1]
        for one in found:
            ChatCompletion.model_validate(one.model_dump(exclude={"metadata", "session_id"}), strict=True)
        assert (await stored.retrieve(made[0])).id == made[0]
        updated = await stored.update(made[0], metadata={"k": "w"})
        assert updated.model_dump()["metadata"] == {"k": "w"}
        assert [one.id async for one in stored.list(limit=1, metadata={"k": "v"})] == made[1:]
        assert [one.id async for one in stored.list(metadata={"k": "v", "m": "v"})] == []
        first = await stored.list(limit=3)
        assert (first.has_next_page(), [one.id for one in first.data]) == (True, made[:3])
        assert [one.id for one in (await first.get_next_page()).data] == made[3:]
        assert [message.content async for message in stored.messages.list(made[0])] == ["hello"]
        said_three = await said(running, store=True, messages=[{"role": "user", "content": text} for text in "abc"])
        for order, words in (("asc", "abc"), ("desc", "cba")):
            pages = stored.messages.list(said_three, limit=1, order=order)  # type: ignore[arg-type]  # one of the two
            assert "".join([message.content or "" async for message in pages]) == words
        deleted = await stored.delete(made[0])
        ChatCompletionDeleted.model_validate(deleted.model_dump(), strict=True)
        with pytest.raises(openai.NotFoundError):
            await stored.retrieve(made[0])


@pytest.mark.parametrize(("members", "store"), [({"store": True}, True), ({"session_id": "s"}, True), ({}, False)])
async def test_one_that_runs_or_failed_says_so_to_its_owner(members: dict[str, Any], *, store: bool) -> None:
    """409 while it runs, with when to ask again; then what it ended in. To others, and without store, it never was."""
    held = Held(1)
    script = Script(before_delta=held, failure=EngineUnavailable("the runner crashed"), fails_at=1)
    log = MemoryEventStore(clock=SystemClock(), ids=RandomIds())
    async with (
        running_server(script, principal=ANN, store=log) as running,
        running_server(principal=BOB, store=log) as others,
    ):
        asking = asyncio.create_task(running.chat(background=True, stream=True, **members))
        await held.reached.wait()
        (one,) = running.use_cases.live
        address = f"/v1/chat/completions/{one.completion_id}"
        for method, path, body in (
            ("GET", address, None),
            ("GET", f"{address}/messages", None),
            ("POST", address, {"metadata": {}}),
            ("DELETE", address, None),
        ):
            answer = await running.http.request(method, path, json=body)
            code = answer.json()["error"]["code"]
            assert (answer.status_code, code) == (
                (409, "completion_running") if store else (404, "completion_not_found")
            )
            assert answer.headers.get("retry-after") == ("1" if store else None)
        assert (await others.http.get(address)).json()["error"]["code"] == "completion_not_found"
        held.released.set()
        await asking
        ended = await running.http.get(address)
        assert (ended.status_code, "ended in runner_crashed" in ended.text) == (404, store)
