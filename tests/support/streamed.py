"""What streams of chats say: their events with ids, and all of it put together."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.http import Running


def events_of(text: str) -> list[str]:
    """The events of a stream, with their ids."""
    events = text.split("\n\n")
    assert events.pop() == ""
    return [re.sub(r"(?m)^:.*\n", "", event) for event in events]


def id_of(event: str) -> str:
    """The id of an event."""
    return event.split("\n", maxsplit=1)[0].removeprefix("id: ")


def told(events: list[str]) -> dict[str, Any]:
    """What the events say in all, by choice and member, however many deltas were joined in one chunk."""
    said: dict[str, Any] = {}
    for event in events:
        data = event.partition("\ndata: ")[2]
        chunk = json.loads(data) if data else {}
        for choice in chunk.get("choices", ()):
            members = choice["delta"] | {"logprobs": (choice["logprobs"] or {}).get("content")}
            members["finish_reason"] = choice["finish_reason"]
            for member, value in members.items():
                name = f"{choice['index']} {member}"
                if value is not None:
                    said[name] = said[name] + value if name in said else value
        if chunk.get("usage"):
            said["usage"] = chunk["usage"]
    return said


def completion_of(text: str) -> str:
    """The id of the completion that a stream tells."""
    found = re.search(r"chatcmpl-[0-9a-f]{32}", text)
    assert found is not None
    return found[0]


async def resumed(running: Running, completion_id: str, last_id: str | None = None, **query: str) -> Any:
    """The answer to a reader who comes back."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    return await running.http.get(f"/v1/chat/completions/{completion_id}/stream", headers=headers, params=query)


def said(events: list[str]) -> str:
    """What the first choice says, reasoning and text."""
    found = told(events)
    return f"{found.get('0 reasoning_content', '')}{found.get('0 content', '')}"
