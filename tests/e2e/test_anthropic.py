"""What a user of anthropic-python sees: a conversation with a real model over a real server."""

from __future__ import annotations

from typing import Any

import httpx
from anthropic import Anthropic
from openai import OpenAI

from tests.support.server import Server

SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}
ASKED: Any = {
    "model": "smollm2-135m-instruct",
    "max_tokens": 16,
    "messages": [{"role": "user", "content": "What is the capital of France? Answer in one word."}],
    "extra_body": {"temperature": 0},
}


def test_messages(server: Server, client: OpenAI) -> None:
    """Whole and streamed the same, counted as it is, with an enforced call; and a session that a chat began."""
    with Anthropic(base_url=server.address, api_key="any", max_retries=0, _strict_response_validation=True) as own:
        whole = own.messages.create(**ASKED)
        assert whole.content[0].type == "text"
        assert "Paris" in whole.content[0].text
        assert whole.stop_reason == "end_turn"
        with own.messages.stream(**ASKED) as stream:
            assert stream.get_final_text() == whole.content[0].text
        counted = own.messages.count_tokens(model=ASKED["model"], messages=ASKED["messages"])
        cached = whole.usage.cache_read_input_tokens or 0
        assert counted.input_tokens == whole.usage.input_tokens + cached > 10

        stopped = own.messages.create(**{**ASKED, "stop_sequences": ["never", "ari"]})
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "ari")

        tool: Any = {"name": "weather", "description": "The weather of a city.", "input_schema": SCHEMA}
        choice: Any = {"type": "any", "disable_parallel_tool_use": True}
        forced = own.messages.create(**{**ASKED, "max_tokens": 64}, tools=[tool], tool_choice=choice)
        call = forced.content[-1]
        assert call.type == "tool_use"
        assert (forced.stop_reason, call.name, list(call.input)) == ("tool_use", "weather", ["city"])

        session = {"session_id": "from-a-chat"}
        client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "I am Ada."}], max_tokens=8, extra_body=session
        )
        went_on = own.messages.create(
            **{**ASKED, "messages": [{"role": "user", "content": "Who am I?"}], "extra_body": session}
        )
    page = httpx.get(f"{server.address}/v1/sessions/from-a-chat/messages").json()["data"]
    assert [message["role"] for message in page] == ["user", "assistant"] * 2
    assert page[-1]["id"] == went_on.id
    assert page[-1]["content"] == "".join(block.text for block in went_on.content if block.type == "text")
