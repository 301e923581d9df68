"""Conversations: sessions through OpenAI's noun, judged by OpenAI's own types."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manent.adapters.inference.script import Script, Thought
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.messages import ToolCall
from tests.support.http import Running, client, running_server
from tests.support.pictures import data_url, picture
from tests.support.strict import strict_conversation, strict_deletion, strict_items

USER = {"type": "message", "role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "1"}
SPEAKS = Script(pieces=(Thought("hm"), "Yes.", ToolCall(id="call_9", name="f", arguments="{}")))


async def conversation(running: Running, *items: dict[str, Any]) -> str:
    """A new conversation's path."""
    made = strict_conversation(await running.http.post("/v1/conversations", json={"items": list(items)}))
    assert made.id.startswith("conv_")
    return f"/v1/conversations/{made.id}"


async def listed(running: Running, path: str, **query: Any) -> list[dict[str, Any]]:
    """The conversation's items, oldest first."""
    answer = await running.http.get(f"{path}/items", params={"order": "asc", "limit": 100, **query})
    return strict_items(answer, conversation=True)


async def test_a_conversation_lives_like_a_session() -> None:
    """Made, read, changed and deleted here, it is seen so through the API of sessions, and the other way round."""
    async with running_server() as running:
        made = await running.http.post("/v1/conversations", json={"metadata": {"a": "b"}, "items": [USER]})
        found = strict_conversation(made)
        path = f"/v1/conversations/{found.id}"
        assert made.headers["x-session-id"] == found.id
        session = (await running.http.get(f"/v1/sessions/{found.id}")).json()
        assert (session["metadata"], session["message_count"]) == ({"a": "b"}, 1)
        changed = await running.http.post(path, json={"metadata": {"c": "d"}})
        assert strict_conversation(changed).metadata == {"c": "d"}
        assert (await running.http.get(path)).json() == changed.json()
        assert strict_deletion(await running.http.delete(path)).deleted
        gone = await running.http.get(path)
        assert (gone.status_code, gone.json()["error"]["param"]) == (404, "conversation_id")
        await running.chat(session_id="other")
        assert strict_conversation(await running.http.get("/v1/conversations/other")).id == "other"
        assert [item["role"] for item in await listed(running, "/v1/conversations/other")] == ["user", "assistant"]
        empty = await running.http.post("/v1/conversations")
        assert strict_conversation(empty).metadata == {}


async def test_an_answer_is_its_items_wherever_it_is_seen() -> None:
    """Reasoning, text and calls have the ids here that the response told."""
    async with running_server(SPEAKS) as running:
        path = await conversation(running)
        body = {"model": "default", "input": "go", "conversation": path.rpartition("/")[2]}
        output = (await running.http.post("/v1/responses", json=body)).json()["output"]
        items = await listed(running, path)
        assert items[1:] == output
        for item in items:
            assert (await running.http.get(f"{path}/items/{item['id']}")).json() == item
        missing = await running.http.get(f"{path}/items/msg_0")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "item_not_found")


async def test_items_are_added_and_listed_in_pages() -> None:
    """Up to twenty at once; reasoning, text and calls in a row are one message; pages go both ways."""
    async with running_server() as running:
        path = await conversation(running, USER)
        thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
        said = {"role": "assistant", "content": [{"type": "output_text", "text": "Yes", "annotations": []}]}
        added = strict_items(
            await running.http.post(f"{path}/items", json={"items": [thought, said, CALL, RESULT]}), conversation=True
        )
        assert [item["type"] for item in added] == ["reasoning", "message", "function_call", "function_call_output"]
        session = (await running.http.get(f"/v1/sessions/{path.rpartition('/')[2]}/messages")).json()["data"]
        assert [message["role"] for message in session] == ["user", "assistant", "tool"]
        everything = await listed(running, path)
        assert everything[1:] == added
        for order in ("asc", "desc"):
            seen: list[str] = []
            after: dict[str, str] = {}
            while True:
                page = await running.http.get(f"{path}/items", params={"order": order, "limit": 2, **after})
                seen += [item["id"] for item in page.json()["data"]]
                if not page.json()["has_more"]:
                    break
                after = {"after": page.json()["last_id"]}
            wanted = [item["id"] for item in everything]
            assert seen == (wanted if order == "asc" else wanted[::-1])


async def test_images_come_with_their_bytes_where_they_are_asked_for() -> None:
    """Lists stay small unless ``include`` names the images."""
    async with running_server() as running:
        image = {"type": "input_image", "image_url": data_url(picture()), "detail": "low"}
        path = await conversation(running, {"role": "user", "content": [{"type": "input_text", "text": "?"}, image]})
        (item,) = await listed(running, path)
        assert item["content"][1] == {"type": "input_image", "detail": "low", "file_id": None, "image_url": None}
        for name in ("include[]", "include"):
            (item,) = await listed(running, path, **{name: "message.input_image.image_url"})
            assert item["content"][1]["image_url"] == image["image_url"]
        wrong = await running.http.get(f"{path}/items", params={"include[]": "all"})
        assert wrong.json()["error"]["param"] == "include"


async def test_an_item_that_is_removed_is_not_seen_any_more() -> None:
    """The rest of its message stays, the model does not see it, the log keeps it."""
    async with running_server(SPEAKS) as running:
        path = await conversation(running, USER)
        session_id = path.rpartition("/")[2]
        body = {"model": "default", "input": "go", "conversation": session_id}
        thought, text, call = (await running.http.post("/v1/responses", json=body)).json()["output"]
        for item, left in ((text, 4), (thought, 3), (call, 2)):
            answer = await running.http.delete(f"{path}/items/{item['id']}")
            assert strict_conversation(answer).id == session_id
            assert len(await listed(running, path)) == left
            assert (await running.http.delete(f"{path}/items/{item['id']}")).status_code == 404
        assert (await running.http.get(f"/v1/sessions/{session_id}")).json()["message_count"] == 2
        running.engine.script = Script()
        await running.http.post("/v1/responses", json=body)
        assert [message.text for message in running.engine.rendered[-1]] == ["hi", "go", "go"]
        as_it_was = await running.http.get(f"/v1/sessions/{session_id}/messages", params={"as_of_version": 6})
        assert len(as_it_was.json()["data"]) == 3


async def test_a_call_with_a_result_is_not_removed_before_it() -> None:
    """No result is left without its call: templates would refuse the conversation."""
    async with running_server() as running:
        path = await conversation(running, USER, CALL, RESULT)
        _, call, result = await listed(running, path)
        refused = await running.http.delete(f"{path}/items/{call['id']}")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "item_id")
        for item in (result, call):
            assert (await running.http.delete(f"{path}/items/{item['id']}")).status_code == 200
        assert len(await listed(running, path)) == 1


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("", {"items": [USER] * 21}, "invalid_value", "items"),
        ("", {"items": [{"type": "mcp_call"}]}, "unsupported_parameter", "items[0].type"),
        ("", {"items": [RESULT]}, "invalid_value", "items"),
        ("", {"metadata": {"k" * 65: ""}}, "invalid_value", "metadata"),
        ("", {"id": "x"}, "unknown_parameter", "id"),
        ("/c/items", {"items": []}, "invalid_value", "items"),
        ("/c/items", {}, "missing_required_parameter", "items"),
        ("/c/items", {"items": [{"type": "item_reference", "id": "msg_1"}]}, "invalid_value", "items[0].id"),
        ("/c", {}, "missing_required_parameter", "metadata"),
    ],
)
async def test_what_is_refused_is_named(path: str, body: dict[str, Any], code: str, param: str) -> None:
    """Mistakes are told with their place, and nothing is recorded."""
    async with running_server() as running:
        await running.chat(session_id="c")
        before = len(await running.log())
        answer = await running.http.post(f"/v1/conversations{path}", json=body)
        assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]) == (
            400,
            code,
            param,
        )
        assert len(await running.log()) == before


async def test_another_ones_conversation_is_not_there() -> None:
    """To anyone else it is a 404, and stays as it is."""
    async with running_server() as running:
        path = await conversation(running, USER)
        stranger = client("eve", LOCAL_OPERATOR.tenant)
        async with running_server(principal=stranger, store=running.store) as hers:
            for method, below, body in (
                ("GET", "", None),
                ("POST", "", {"metadata": {}}),
                ("DELETE", "", None),
                ("GET", "/items", None),
                ("POST", "/items", {"items": [USER]}),
                ("GET", "/items/msg_1", None),
                ("DELETE", "/items/msg_1", None),
            ):
                answer = await hers.http.request(method, f"{path}{below}", json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")
        assert len(await listed(running, path)) == 1


async def test_items_wait_for_the_answer_that_is_being_generated() -> None:
    """What is added meanwhile stands behind the answer."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def held(_: int) -> None:
        reached.set()
        await go_on.wait()

    async with running_server(Script(before_delta=held), session_wait_s=5.0) as running:
        path = await conversation(running)
        body = {"model": "default", "input": "go", "conversation": path.rpartition("/")[2]}
        answering = asyncio.create_task(running.http.post("/v1/responses", json=body))
        await reached.wait()
        adding = asyncio.create_task(running.http.post(f"{path}/items", json={"items": [USER]}))
        await asyncio.sleep(0.02)
        go_on.set()
        await asyncio.gather(answering, adding)
        assert [item["role"] for item in await listed(running, path)] == ["user", "assistant", "user"]
