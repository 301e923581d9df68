"""OpenAI's own types as strict judges of what is sent: wrong types, missing members and unknown kinds are all found."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import httpx
import msgspec
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItem
from openai.types.responses import InputTokenCountResponse, Response, ResponseItem, ResponseStreamEvent
from pydantic import TypeAdapter

from manent.adapters.http import wire_response_answers as own


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _by_type(union: Any) -> dict[str, Any]:
    """The members of one of the SDK's unions, by what their ``type`` says."""
    members = get_args(get_args(union)[0])
    return {name: member for member in members for name in get_args(member.model_fields["type"].annotation)}


EVENTS = _by_type(ResponseStreamEvent)
RESPONSE_ITEMS = get_args(get_args(ResponseItem)[0])
CONVERSATION_ITEMS = _by_type(ConversationItem)


def strict_response(answer: httpx.Response | bytes) -> Response:
    """The response in an answer: OpenAI's type takes it, and it has exactly our members."""
    data = answer if isinstance(answer, bytes) else answer.content
    own.Response.model_validate_json(data, strict=True)
    response: Response = _checked(Response, data)
    return response


def strict_conversation(answer: httpx.Response) -> Conversation:
    """The conversation in an answer."""
    own.Conversation.model_validate_json(answer.content, strict=True)
    conversation: Conversation = _checked(Conversation, answer.content)
    return conversation


def strict_deletion(answer: httpx.Response) -> ConversationDeletedResource:
    """The deletion of a conversation in an answer."""
    deleted: ConversationDeletedResource = _checked(ConversationDeletedResource, answer.content)
    return deleted


def strict_tokens(answer: httpx.Response) -> int:
    """The count of tokens in an answer."""
    counted: InputTokenCountResponse = _checked(InputTokenCountResponse, answer.content)
    return counted.input_tokens


def strict_items(answer: httpx.Response, *, conversation: bool = False) -> list[dict[str, Any]]:
    """The items of a list, each of one of OpenAI's types."""
    listed = own.ItemList.model_validate_json(answer.content, strict=True)
    found: list[dict[str, Any]] = answer.json()["data"]
    for item in found:
        data = msgspec.json.encode(item)
        if conversation:
            _checked(CONVERSATION_ITEMS[item["type"]], data)
        else:
            candidates = [
                one for one in RESPONSE_ITEMS if item["type"] in get_args(one.model_fields["type"].annotation)
            ]
            assert any(_accepts(one, data) for one in candidates), item
    assert (listed.first_id, listed.last_id) == ((found[0]["id"], found[-1]["id"]) if found else (None, None))
    return found


def strict_events(text: str, *, first: int = 0) -> list[dict[str, Any]]:
    """The events of a stream: each named, of OpenAI's type, numbered without a gap from ``first`` on."""
    events = []
    for block in text.removesuffix("\n\n").split("\n\n") if text else ():
        told = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not told:
            continue
        name, data = told
        event = msgspec.json.decode(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        _checked(EVENTS[event["type"]], data.removeprefix("data: ").encode())
        if "response" in event:
            own.Response.model_validate_json(msgspec.json.encode(event["response"]), strict=True)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(first, first + len(events)))
    return events


def check_order(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The response at the end of a whole stream, after OpenAI's order of events was checked item by item."""
    kinds = [event["type"] for event in events]
    background = events[0]["response"]["background"]
    opening = ["created", "queued", "in_progress"] if background else ["created", "in_progress"]
    assert kinds[: len(opening)] == [f"response.{kind}" for kind in opening]
    begun = {"created": "queued", "queued": "queued"} if background else {}
    for event in events[: len(opening)]:
        kind = event["type"].removeprefix("response.")
        assert event["response"]["status"] == begun.get(kind, "in_progress")
    assert kinds[-1] in {"response.completed", "response.incomplete", "response.failed"}
    last: dict[str, Any] = events[-1]["response"]
    open_index: int | None = None
    items: list[dict[str, Any]] = []
    text = ""
    for event in events[len(opening) : -1]:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert open_index is None
            open_index, text = event["output_index"], ""
            assert open_index == len(items)
        assert event["output_index"] == open_index
        if kind.endswith(".delta"):
            text += event["delta"]
        if kind in {"output_text.done", "reasoning_text.done"}:
            assert event["text"] == text
        if kind == "function_call_arguments.done":
            assert event["arguments"] == text
            assert event["name"]
        if kind == "output_item.done":
            items.append(event["item"])
            open_index = None
    assert open_index is None
    assert last["output"] == items
    assert {event["response"]["id"] for event in events if "response" in event} == {last["id"]}
    return last


def _checked(kind: Any, data: bytes) -> Any:
    return _adapter(kind).validate_json(data, strict=True)


def _accepts(kind: Any, data: bytes) -> bool:
    try:
        _checked(kind, data)
    except ValueError:
        return False
    return True
