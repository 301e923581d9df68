"""Answers and events against the official client's own types, read strictly, and the order in which clients insist."""

from __future__ import annotations

import json
from typing import Any

import httpx
from openai.types.chat import ChatCompletionChunk
from openai.types.completion import Completion
from pydantic import BaseModel

from tests.support.http import sse_events

TYPES = {403: "permission_error", 409: "conflict_error"}
HEADERS = ("x-request-id", "openai-processing-ms", "openai-version")


def conforms(kind: type[BaseModel], answer: httpx.Response) -> dict[str, Any]:
    """The members of an answer, which is a ``kind`` without any conversion: no float for an int, no unknown word."""
    assert answer.status_code == 200, answer.text
    check_headers(answer)
    assert answer.headers["content-type"] == "application/json"
    kind.model_validate_json(answer.content, strict=True)
    members: dict[str, Any] = answer.json()
    return members


def check_headers(answer: httpx.Response) -> None:
    """What every answer has, whatever it is."""
    assert all(answer.headers.get(name) for name in HEADERS), answer.headers
    assert int(answer.headers["openai-processing-ms"]) >= 1


def check_error(answer: httpx.Response, status: int, code: str) -> None:
    """OpenAI's envelope, with exactly its four members, and what a client is told about trying again."""
    check_headers(answer)
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert isinstance(error["message"], str)
    assert error["message"]
    expected = {
        400: "invalid_request_error",
        404: "invalid_request_error",
        409: "conflict_error",
        403: "permission_error",
    }
    assert error["type"] == expected.get(status, "server_error" if status >= 500 else "invalid_request_error")
    assert (answer.headers.get("x-should-retry") == "false") == (status in {409, 504})
    if "retry-after" in answer.headers:
        assert int(answer.headers["retry-after-ms"]) <= int(answer.headers["retry-after"]) * 1000


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream: data alone, without ids, names and retries, ``[DONE]`` as the last."""
    assert answer.status_code == 200, answer.text
    check_headers(answer)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = [line for line in answer.text.split("\n") if line]
    assert all(line.startswith(("id: ", "data: ")) or line == ": ping" for line in lines)
    *events, done = sse_events(answer.text)
    assert done == "[DONE]"
    return [json.loads(event) for event in events]


def check_chat_stream(answer: httpx.Response, *, usage: bool, choices: int) -> list[dict[str, Any]]:
    """The chunks: role first, then deltas, then the reason of each choice, then the usage where it was asked for."""
    chunks = events_of(answer)
    for chunk in chunks:
        ChatCompletionChunk.model_validate_json(json.dumps(chunk), strict=True)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    if usage:
        last = chunks[-1]
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] > 0
        assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    else:
        assert not any("usage" in chunk for chunk in chunks)
    for index in range(choices):
        own = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        first, *rest, end = own
        assert first["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert end["delta"] == {}
        assert end["finish_reason"] in {"stop", "length", "tool_calls"}
        assert [choice["finish_reason"] for choice in (first, *rest)] == [None] * (len(rest) + 1)
        assert not any("role" in choice["delta"] for choice in rest)
        _check_calls([call for choice in rest for call in choice["delta"].get("tool_calls", ())])
    return chunks


def check_text_stream(answer: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of text completions. The client's type knows no chunk: its reason is not null there, and is here."""
    chunks = events_of(answer)
    for chunk in chunks:
        told = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
        Completion.model_validate_json(json.dumps({**chunk, "choices": told}), strict=True)
    return chunks


def _check_calls(fragments: list[dict[str, Any]]) -> None:
    """Fragments count up; id, type and name come with the first of each and never again."""
    seen: set[int] = set()
    for fragment in fragments:
        if fragment["index"] not in seen:
            assert fragment["index"] == len(seen)
            assert fragment["id"]
            assert fragment["type"] == "function"
            assert fragment["function"]["name"]
        else:
            assert set(fragment) == {"index", "function"}
            assert set(fragment["function"]) == {"arguments"}
        seen.add(fragment["index"])
