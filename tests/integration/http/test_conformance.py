"""What is sent is what the official client's types say, read strictly, for many parameters; and its helpers agree.

The tables of deviations that break clients, turned round: none of them is to be found in what Manent sends.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionDeleted
from pydantic import BaseModel

from manent.adapters.inference.script import Script, Thought
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.embedding import ModelType
from manent.domain.errors import EngineUnavailable
from manent.domain.generation import GenerationRequest, ModelCard
from manent.domain.messages import ToolCall
from tests.support.conformance import check_chat_stream, check_error, check_text_stream, conforms
from tests.support.http import USER, Running, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = (ToolCall(id="call_1", name="f", arguments='{"a": 1}'), ToolCall(id="call_2", name="f", arguments="{}"))
SCRIPTS = {
    "plain": Script(pieces=("Hé", "llo", " 🙂", "!")),
    "empty": Script(pieces=()),
    "reasoner": Script(pieces=(Thought("be"), Thought("cause"), "so")),
    "caller": Script(pieces=CALLS),
    "everything": Script(pieces=(Thought("why"), "I look.", *CALLS)),
    "failing": Script(failure=EngineUnavailable("crashed"), fails_at=2),
    "vectors": Script(),
}
CARDS = [
    ModelCard(
        model_id=name,
        context_length=4096,
        created_at_s=1,
        aliases=("default",) if name == "plain" else (),
        type=ModelType.EMBEDDING if name == "vectors" else ModelType.LLM,
    )
    for name in SCRIPTS
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
MEMBERS: list[dict[str, Any]] = [
    {},
    {"n": 2, "seed": 3},
    {"logprobs": True},
    {"logprobs": True, "top_logprobs": 3, "n": 2},
    {"max_tokens": 2},
    {"stop": ["llo"]},
    {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True},
    {"response_format": SCHEMA},
    {"session_id": "s", "session_mode": "append"},
    {"store": True, "metadata": {"k": "v"}, "user": "u", "service_tier": "flex", "reasoning_effort": "minimal"},
    {"verbosity": "low", "prediction": {"type": "content", "content": "x"}, "modalities": ["text"]},
]
CHATS = "/v1/chat/completions"
CHAT = {"model": "plain", "messages": [USER]}
NUMBERS = itertools.count()
TALKERS = ("plain", "empty", "reasoner", "caller", "everything")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncGenerator[Running, None]:
    """A server with a model for every kind of answer."""

    def script(request: GenerationRequest) -> Script:
        return SCRIPTS[request.model_id]

    async with running_server(engine=ScriptedEngine(script, cards=CARDS)) as server:
        yield server


def in_new_session(members: dict[str, Any]) -> dict[str, Any]:
    """The members, with another session where they name one."""
    return {**members, "session_id": f"s{next(NUMBERS)}"} if "session_id" in members else members


@pytest.mark.parametrize("model", TALKERS)
@pytest.mark.parametrize("members", MEMBERS, ids=lambda members: "-".join(members) or "plain")
async def test_chats_whole_and_streamed(running: Running, model: str, members: dict[str, Any]) -> None:
    """Both pass the client's types; the stream adds up to the whole, and keeps the order that clients insist on."""
    whole = conforms(ChatCompletion, await running.chat(model=model, **in_new_session(members)))
    for usage in (True, False):
        options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
        answer = await running.chat(model=model, stream=True, **options, **in_new_session(members))
        chunks = check_chat_stream(answer, usage=usage, choices=members.get("n", 1))
        for choice in whole["choices"]:
            deltas = [one for chunk in chunks for one in chunk["choices"] if one["index"] == choice["index"]]
            for name in ("content", "reasoning", "reasoning_content"):
                text = "".join(one["delta"].get(name) or "" for one in deltas)
                assert text == (choice["message"].get(name) or "")
            assert deltas[-1]["finish_reason"] == choice["finish_reason"]
        if usage:
            assert chunks[-1]["usage"] == whole["usage"]
        assert chunks[-1]["system_fingerprint"] == whole["system_fingerprint"]


@pytest.mark.parametrize("model", TALKERS)
@pytest.mark.parametrize("members", [{}, {"n": 2}, {"logprobs": True, "top_logprobs": 1}, {"tools": TOOLS}], ids=str)
async def test_every_helper_of_the_client_agrees(running: Running, model: str, members: dict[str, Any]) -> None:
    """create, a stream put together by hand, and ``.stream()``: the same words, thoughts, calls and reasons."""
    async with running.openai() as client:
        ask: dict[str, Any] = {"model": model, "messages": [USER], **members}
        whole = await client.chat.completions.create(**ask)
        async with client.chat.completions.stream(**ask, stream_options={"include_usage": True}) as stream:
            events = [event.type async for event in stream]
            final = await stream.get_final_completion()
        assert "chunk" in events
        for ours, theirs in itertools.zip_longest(whole.choices, final.choices):
            assert ours.finish_reason == theirs.finish_reason
            assert (ours.message.content or "") == (theirs.message.content or "")
            assert _calls(ours.message) == _calls(theirs.message)
            assert _tokens(ours) == _tokens(theirs)
        assert final.usage == whole.usage
        by_hand = [chunk async for chunk in await client.chat.completions.create(**ask, stream=True)]
        told = "".join(one.delta.content or "" for chunk in by_hand for one in chunk.choices if one.index == 0)
        assert told == (whole.choices[0].message.content or "")


def _calls(message: Any) -> list[tuple[str, str, str]]:
    return [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def _tokens(choice: Any) -> list[tuple[str, float]]:
    return [] if choice.logprobs is None else [(one.token, one.logprob) for one in choice.logprobs.content or ()]


async def test_a_structured_answer_is_parsed_by_the_client(running: Running) -> None:
    """``.parse()`` and the function tools that the client makes of pydantic models."""

    class Empty(BaseModel):
        """Nothing."""

    SCRIPTS["plain"] = Script(pieces=("{", "}"))
    try:
        async with running.openai() as client:
            parsed = await client.chat.completions.parse(model="plain", messages=[USER], response_format=Empty)  # type: ignore[list-item]  # a plain dict will do
        assert isinstance(parsed.choices[0].message.parsed, Empty)
    finally:
        SCRIPTS["plain"] = Script(pieces=("Hé", "llo", " 🙂", "!"))


@pytest.mark.parametrize("members", [{}, {"n": 2, "echo": True}, {"logprobs": 2}, {"prompt": ["a", "b"]}], ids=str)
async def test_text_completions(running: Running, members: dict[str, Any]) -> None:
    """Whole and streamed."""
    ask = {"model": "plain", "prompt": "a b", **members}
    conforms(Completion, await running.http.post("/v1/completions", json=ask))
    check_text_stream(await running.http.post("/v1/completions", json={**ask, "stream": True}))


async def test_the_other_answers(running: Running) -> None:
    """Models, embeddings in both encodings, and what becomes of a stored completion."""
    for model in (await running.http.get("/v1/models")).json()["data"]:
        conforms(Model, await running.http.get(f"/v1/models/{model['id']}"))
    for encoding in ("float", "base64"):
        ask = {"model": "vectors", "input": ["a", "b"], "encoding_format": encoding}
        answer = await running.http.post("/v1/embeddings", json=ask)
        if encoding == "float":
            conforms(CreateEmbeddingResponse, answer)
    async with running.openai() as client:
        vectors = await client.embeddings.create(model="vectors", input="a")
        assert all(isinstance(number, float) for number in vectors.data[0].embedding)
    stored = (await running.chat(store=True)).json()["id"]
    address = f"/v1/chat/completions/{stored}"
    conforms(ChatCompletion, await running.http.get(address))
    conforms(ChatCompletion, await running.http.post(address, json={"metadata": {"a": "b"}}))
    conforms(ChatCompletionDeleted, await running.http.delete(address))


ERRORS: list[tuple[str, str, Any, int, str]] = [
    ("POST", CHATS, {"messages": [USER]}, 400, "missing_required_parameter"),
    ("POST", CHATS, {**CHAT, "n": 0}, 400, "invalid_value"),
    ("POST", CHATS, {**CHAT, "audio": {}}, 400, "unsupported_parameter"),
    ("POST", CHATS, {**CHAT, "x": 0}, 400, "unknown_parameter"),
    ("POST", CHATS, {**CHAT, "max_tokens": 4096}, 400, "context_length_exceeded"),
    ("POST", CHATS, {**CHAT, "model": "none"}, 404, "model_not_found"),
    ("POST", CHATS, {**CHAT, "model": "vectors"}, 400, "wrong_model_type"),
    ("POST", CHATS, {**CHAT, "model": "failing"}, 503, "runner_crashed"),
    ("POST", "/v1/completions", {"model": "failing", "prompt": "x"}, 503, "runner_crashed"),
    ("POST", "/v1/embeddings", {"model": "vectors"}, 400, "missing_required_parameter"),
    ("GET", f"{CHATS}/none", None, 404, "completion_not_found"),
    ("GET", "/v1/models/none", None, 404, "model_not_found"),
    ("GET", "/v1/nothing", None, 404, "unknown_url"),
    ("POST", "/v1/moderations", {"input": "x"}, 404, "unsupported_endpoint"),
    ("POST", "/v1/audio/speech", {}, 404, "unsupported_endpoint"),
    ("PUT", "/v1/models", None, 405, "method_not_allowed"),
    ("POST", "/v1/sessions", {"session_id": "taken"}, 409, "session_already_exists"),
]


@pytest.mark.parametrize("case", ERRORS, ids=str)
async def test_errors(running: Running, case: tuple[str, str, Any, int, str]) -> None:
    """One envelope for whatever went wrong, wherever; with the type that its status has."""
    method, path, body, status, code = case
    if code == "session_already_exists":
        await running.http.post(path, json=body)
    check_error(await running.http.request(method, path, json=body), status, code)


async def test_the_client_names_what_is_not_offered(running: Running) -> None:
    """A NotFoundError whose words say why, and not a mere address."""
    async with AsyncOpenAI(base_url=f"{running.address}/v1", api_key="any", max_retries=0) as client:
        for ask in (client.moderations.create(input="x"), client.images.generate(prompt="x")):
            with pytest.raises(Exception, match="Manent does not offer") as raised:
                await ask
            assert type(raised.value).__name__ == "NotFoundError"
