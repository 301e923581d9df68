"""What Open WebUI asks of a server: its requests, written down from reading version 0.12.4, with texts of our own.

It takes its own members (``session_id``, ``chat_id``, ``metadata``, ``features``, …) out before it asks; what it sends
is OpenAI's, and what its users set as advanced or custom parameters of a model.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from manent.domain.embedding import ModelType
from manent.domain.generation import ModelCard
from tests.support.dialogue import ANSWER, dialogue_engine
from tests.support.http import running_server

# Sent with each request where its operator forwards who asks.
HEADERS = {
    "Authorization": "Bearer any",
    "X-OpenWebUI-User-Name": "Ada",
    "X-OpenWebUI-User-Id": "0d1f",
    "X-OpenWebUI-User-Email": "ada@example.com",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "chat-1",
}
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
TASK = {
    "role": "user",
    "content": '### Task:\nSay it in JSON.\n### Output:\nJSON format: { "title": "…" }\n### Chat:\n…',
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "The city"}},
            "required": ["location"],
        },
    },
}
CALL = {
    "id": "call_1",
    "type": "function",
    "index": 0,
    "function": {"name": "get_weather", "arguments": '{"location": "Paris"}'},
}
ADVANCED = {
    "temperature": 0.8,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "seed": 42,
    "stop": ["</end>"],
    "logit_bias": {"18": 5},
    "max_tokens": 128,
    "repeat_penalty": 1,
    "mirostat": 0,
    "tfs_z": 1,
    "keep_alive": "5m",
}
BODIES: dict[str, dict[str, Any]] = {
    "a chat": {"stream": True, "messages": [SYSTEM, QUESTION]},
    "with usage": {"stream": True, "stream_options": {"include_usage": True}, "messages": [QUESTION]},
    "advanced parameters": {"stream": True, "messages": [QUESTION], **ADVANCED},
    "a title": {"stream": False, "messages": [TASK], "max_tokens": 1000},
    "tags, without a bound": {"stream": False, "messages": [TASK]},
    "regenerated": {"stream": True, "messages": [QUESTION, {"role": "assistant", "content": "Sunny."}, QUESTION]},
    "tools offered": {"stream": True, "messages": [SYSTEM, QUESTION], "tools": [TOOL]},
    "a tool's result": {
        "stream": True,
        "messages": [
            QUESTION,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"},
        ],
        "tools": [TOOL],
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_its_chats_and_tasks_are_answered(body: dict[str, Any]) -> None:
    """Each is answered in the way in which it reads answers."""
    async with running_server(engine=dialogue_engine()) as running:
        answer = await running.http.post("/v1/chat/completions", json={"model": "default", **body}, headers=HEADERS)
        assert answer.status_code == 200, answer.text
        if not body["stream"]:
            assert answer.json()["choices"][0]["message"]["content"]
            return
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        chunks = [json.loads(line) for line in lines[:-1]]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        text = "".join(delta.get("content") or "" for delta in deltas)
        assert text == (ANSWER if body["messages"][-1]["role"] == "tool" else text)
        assert text
        assert bool(chunks[-1].get("usage")) == ("stream_options" in body)


async def test_it_finds_the_models_and_embeds() -> None:
    """The list is read for ids; documents are embedded in lists of texts, as lists of numbers."""
    vectors_card = ModelCard(model_id="vectors", context_length=20, created_at_s=0, type=ModelType.EMBEDDING)
    async with running_server(engine=ScriptedEngine(cards=(SCRIPTED_CARD, vectors_card))) as running:
        models = (await running.http.get("/v1/models", headers=HEADERS)).json()
        assert {model["id"] for model in models["data"]} == {"scripted", "vectors"}
        asked = {"model": "vectors", "input": ["a", "b"]}
        vectors = (await running.http.post("/v1/embeddings", json=asked, headers=HEADERS)).json()["data"]
        assert all(isinstance(row["embedding"][0], float) for row in vectors)


async def test_what_a_user_sets_and_manent_has_not_is_named() -> None:
    """Open WebUI shows the message: it says what is not there, and what would be."""
    async with running_server() as running:
        refused = (await running.chat(stream=True, num_ctx=8192)).json()["error"]
        assert (refused["code"], refused["param"]) == ("unsupported_parameter", "num_ctx")
        assert "Ollama's" in refused["message"]
