"""Anthropic's official client, pointed at a server of a test, and its types, read strictly."""

from __future__ import annotations

import json
from typing import Any

from anthropic import AsyncAnthropic
from anthropic.types import Message, RawMessageStreamEvent, Usage
from anthropic.types.shared import ErrorResponse
from httpx import Response
from pydantic import TypeAdapter

from tests.support.http import WAIT_S, Running

USER: Any = {"role": "user", "content": "hello"}
PING = 'event: ping\ndata: {"type":"ping"}'
EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def anthropic(running: Running, **options: Any) -> AsyncAnthropic:
    """The client; whatever does not fit its types raises."""
    given: dict[str, Any] = {"api_key": "any", "max_retries": 0, "timeout": WAIT_S, **options}
    return AsyncAnthropic(base_url=running.address, _strict_response_validation=True, **given)


async def post(running: Running, path: str = "/v1/messages", **members: Any) -> Response:
    """Post a message with defaults that work, as a client without an SDK does."""
    headers = members.pop("headers", {})
    body = {"model": "default", "max_tokens": 64, "messages": [USER], **members}
    return await running.http.post(path, json=body, headers=headers)


def message_of(answer: Response) -> dict[str, Any]:
    """A whole answer: of exactly the members that Anthropic's types have, and the session's id."""
    assert answer.status_code == 200, answer.text
    Message.model_validate_json(answer.content, strict=True)
    members: dict[str, Any] = answer.json()
    assert set(members) == {*Message.model_fields, "session_id"}
    assert set(members["usage"]) == set(Usage.model_fields)
    return members


def events_of(answer: Response) -> list[dict[str, Any]]:
    """The events of a stream, named as they say themselves; pings are left out."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *blocks, end = answer.text.split("\n\n")
    assert end == ""
    events = []
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if block != PING:
            events.append(event)
    return events


def told(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that the events of a stream add up to, found to be in Anthropic's order."""
    for event in events:
        EVENT.validate_json(json.dumps(event), strict=True)
    start, *middle, delta, stop = events
    assert (start["type"], delta["type"], stop) == ("message_start", "message_delta", {"type": "message_stop"})
    blocks: list[dict[str, Any]] = []
    inputs: dict[int, str] = {}
    for event in middle:
        match event:
            case {"type": "content_block_start", "index": index, "content_block": block}:
                assert index == len(blocks)
                blocks.append(block)
            case {"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta"} as added}:
                inputs[index] = inputs.get(index, "") + added["partial_json"]
            case {"type": "content_block_delta", "index": index, "delta": added}:
                (name,) = set(added) - {"type"}
                blocks[index][name] += added[name]
                assert index == len(blocks) - 1
            case _:
                assert event == {"type": "content_block_stop", "index": len(blocks) - 1}
    for index, text in inputs.items():
        blocks[index]["input"] = json.loads(text)
    assert [event["type"] for event in middle].count("content_block_stop") == len(blocks)
    usage = {**start["message"]["usage"], **delta["usage"]}
    return {**start["message"], **delta["delta"], "content": blocks, "usage": usage}


def check_error(answer: Response, status: int, kind: str, code: str) -> dict[str, Any]:
    """Anthropic's envelope with exactly its members, and the header that its SDK reads the request's id from."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    members: dict[str, Any] = answer.json()
    if kind != "request_too_large":  # documented, and not among the types of the SDK
        ErrorResponse.model_validate_json(answer.content, strict=True)
    assert set(members) == {"type", "error", "request_id"}
    assert members["error"]["type"] == kind
    assert members["error"]["details"]["error_code"] == code
    assert members["request_id"] == answer.headers["request-id"]
    return members
