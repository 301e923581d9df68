"""POST /v1/completions: prompts as they stand, every form of them, whole and streamed, and what the log has of them."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import httpx
import pytest
from openai.types import Completion

from manent.adapters.http.wire_text import TextCompletion, TextCompletionChunk
from manent.adapters.inference.script import Script, token_of
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.errors import GenerationFailed
from manent.domain.generation import GenerationRequest
from tests.support.http import Running, running_server, sse_events

SCRIPT = Script(pieces=(" Hé", "llo", "!", " more", " and", " more"))
ASK: dict[str, Any] = {"model": "default", "prompt": "Once upon"}


async def post(running: Running, **members: Any) -> httpx.Response:
    """Ask, with defaults that work."""
    return await running.http.post("/v1/completions", json={**ASK, **members})


async def whole(running: Running, **members: Any) -> TextCompletion:
    """The answer, checked against its model and the official client's."""
    answer = await post(running, **members)
    assert answer.status_code == 200, answer.text
    Completion.model_validate_json(answer.content, strict=True)
    return TextCompletion.model_validate_json(answer.content, strict=True)


async def streamed(running: Running, **members: Any) -> list[TextCompletionChunk]:
    """The chunks of the same, each checked against its model."""
    answer = await post(running, stream=True, **members)
    assert answer.status_code == 200, answer.text
    *events, done = sse_events(answer.text)
    assert done == "[DONE]"
    return [TextCompletionChunk.model_validate_json(event, strict=True) for event in events]


async def test_a_prompt_is_continued_as_it_stands() -> None:
    """No template: the engine is given the prompt's own tokens, and what it says keeps its leading space."""
    async with running_server(SCRIPT) as running:
        completion = await whole(running, max_tokens=3)
        (choice,) = completion.choices
        assert (choice.text, choice.finish_reason, choice.logprobs) == (" Héllo!", "length", None)
        assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (2, 3)
        assert completion.id.startswith("cmpl-")
        (request,) = running.engine.requests
        assert request.prompt.token_ids == (token_of("Once"), token_of("upon"))
        assert request.prompt.raw
        requested = await running.payload_of("CompletionRequested")
        assert (requested["completion_id"], requested["input"]) == (completion.id, [])
        assert requested["prompt"]["content"] is None
        assert (await running.payload_of("CompletionGenerated"))["text"] is None


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("a b", [("a", "b")]),
        (["a", "b c"], [("a",), ("b", "c")]),
        ([5, 6], [(5, 6)]),
        ([[5], [6, 7]], [(5,), (6, 7)]),
        ("", [("<begin>",)]),
    ],
)
async def test_every_form_of_prompt(prompt: Any, tokens: list[tuple[Any, ...]]) -> None:
    """Each prompt is a completion of its own in the log; choices count through all of them, usage is their sum."""
    async with running_server(SCRIPT) as running:
        completion = await whole(running, prompt=prompt, n=2)
        assert [choice.index for choice in completion.choices] == list(range(2 * len(tokens)))
        expected = [tuple(token_of(token) if isinstance(token, str) else token for token in one) for one in tokens]
        assert sorted(request.prompt.token_ids for request in running.engine.requests) == sorted(expected)
        assert completion.usage.prompt_tokens == sum(map(len, expected))
        requested = [json.loads(entry.payload or b"") for entry in await running.log("CompletionRequested")]
        assert len({one["completion_id"] for one in requested}) == len(tokens)
        assert len({entry.header.request_id for entry in await running.log("CompletionRequested")}) == 1
        assert len(await running.log("CompletionGenerated")) == len(tokens)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"prompt": ["a", "b"], "n": 2, "echo": True},
        {"logprobs": 2, "max_tokens": 4},
        {"stop": "llo"},
        {"prompt": [1, 2], "echo": True},
    ],
)
async def test_streamed_equals_whole(members: dict[str, Any]) -> None:
    """Text, log probabilities, reasons and usage are the same; the usage comes last, in a chunk without choices."""
    async with running_server(SCRIPT) as running:
        expected = await whole(running, seed=1, **members)
        *chunks, last = await streamed(running, seed=1, stream_options={"include_usage": True}, **members)
        assert (last.choices, last.usage) == ([], expected.usage)
        texts: defaultdict[int, str] = defaultdict(str)
        logprobs: defaultdict[int, list[float]] = defaultdict(list)
        offsets: defaultdict[int, list[int]] = defaultdict(list)
        reasons = {}
        for choice in (choice for chunk in chunks for choice in chunk.choices):
            texts[choice.index] += choice.text
            if choice.logprobs is not None:
                logprobs[choice.index] += choice.logprobs.token_logprobs
                offsets[choice.index] += choice.logprobs.text_offset
            reasons[choice.index] = choice.finish_reason
        for one in expected.choices:
            assert (texts[one.index], reasons[one.index]) == (one.text, one.finish_reason)
            if one.logprobs is not None:
                assert logprobs[one.index] == one.logprobs.token_logprobs
                assert offsets[one.index] == one.logprobs.text_offset
        assert {chunk.id for chunk in chunks} == {last.id}


async def test_log_probabilities_have_the_older_shape() -> None:
    """Four lists side by side; offsets count characters of the text; 0 gives the chosen token alone."""
    async with running_server(SCRIPT) as running:
        (choice,) = (await whole(running, logprobs=2, max_tokens=3)).choices
        assert choice.logprobs is not None
        assert choice.logprobs.tokens == [" Hé", "llo", "!"]
        assert choice.logprobs.token_logprobs == [-0.5, -0.5, -0.5]
        assert choice.logprobs.top_logprobs[0] == {" Hé": -0.5, " Hé1": -1.5}
        assert choice.logprobs.text_offset == [0, 3, 6]
        (choice,) = (await whole(running, logprobs=0, max_tokens=1)).choices
        assert choice.logprobs is not None
        assert choice.logprobs.top_logprobs == [{" Hé": -0.5}]


async def test_sixteen_tokens_are_the_default() -> None:
    """As OpenAI has it here, and nowhere else."""
    async with running_server(Script(pieces=tuple(f" {number}" for number in range(30)))) as running:
        completion = await whole(running)
        assert (completion.usage.completion_tokens, completion.choices[0].finish_reason) == (16, "length")


@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ({"suffix": "end"}, "unsupported_parameter", "suffix"),
        ({"best_of": 2}, "unsupported_parameter", "best_of"),
        ({"echo": True, "logprobs": 0}, "unsupported_parameter", "echo"),
        ({"logprobs": 6}, "invalid_value", "logprobs"),
        ({"logprobs": True}, "invalid_type", "logprobs"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"prompt": None}, "invalid_type", "prompt"),
        ({"prompt": []}, "invalid_value", "prompt"),
        ({"prompt": [[]]}, "invalid_value", "prompt[0]"),
        ({"prompt": ["a"] * 33}, "invalid_value", "prompt"),
        ({"prompt": ["a", 1]}, "invalid_type", "prompt[1]"),
        ({"prompt": [2**31]}, "invalid_value", "prompt[0]"),
        ({"messages": []}, "unknown_parameter", "messages"),
        ({"tools": []}, "unknown_parameter", "tools"),
        ({"store": True}, "unknown_parameter", "store"),
        ({"stream_options": {}}, "invalid_value", "stream_options"),
    ],
)
async def test_what_is_refused_is_refused_by_name(members: dict[str, Any], code: str, param: str) -> None:
    """The code, and the path of the parameter; nothing is recorded."""
    async with running_server(SCRIPT) as running:
        answer = await post(running, **members)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
        assert await running.log() == []


async def test_defaults_that_ask_for_nothing_pass() -> None:
    """What SDKs send along."""
    async with running_server(SCRIPT) as running:
        assert (await whole(running, suffix=None, best_of=1, echo=False, logprobs=None, n=1)).choices


async def test_one_that_fails_fails_all() -> None:
    """The answer is the error, whole or in the stream, and every prompt has its one terminal event."""

    def script(request: GenerationRequest) -> Script:
        bad = request.prompt.token_ids == (token_of("bad"),)
        return Script(failure=GenerationFailed("no"), fails_at=2) if bad else Script(pieces=(" x",) * 9)

    engine = ScriptedEngine(script)
    async with running_server(engine=engine) as running:
        answer = await post(running, prompt=["good", "bad"])
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "generation_failed")
        answer = await post(running, prompt=["good", "bad"], stream=True)
        assert json.loads(sse_events(answer.text)[-1])["error"]["code"] == "generation_failed"
        await running.use_cases.live.drain(finish_s=1.0, close_s=1.0)
        assert len(await running.log("CompletionRequested")) == 4
        assert len(await running.log("CompletionFailed")) == 2
        ended = [await running.log(f"Completion{how}") for how in ("Generated", "Cancelled", "Failed")]
        assert sum(map(len, ended)) == 4


async def test_a_repetition_has_the_same_answer() -> None:
    """An idempotency key holds for each prompt, and has the content recorded, the prompt's text too."""
    async with running_server(SCRIPT) as running:
        body = {**ASK, "prompt": ["a b", "c"], "echo": True}
        answers = [
            await running.http.post("/v1/completions", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
        ]
        assert answers[0].json() == answers[1].json()
        assert answers[0].json()["choices"][0]["text"].startswith("a b Hé")
        requested = [json.loads(entry.payload or b"") for entry in await running.log("CompletionRequested")]
        assert sorted(one["prompt"]["content"]["text"] for one in requested) == ["a b", "c"]


async def test_its_context_is_its_prompt() -> None:
    """What the model saw is tokenized again, and is what was committed to."""
    async with running_server(SCRIPT) as running:
        answer = await running.http.post("/v1/completions", json=ASK, headers={"Idempotency-Key": "k"})
        context = (await running.http.get(f"/v1/chat/completions/{answer.json()['id']}/context")).json()
        assert (context["verdict"], context["messages"], context["prompt"]["text"]) == ("matches", [], "Once upon")
        plain = await post(running)
        unknown = await running.http.get(f"/v1/chat/completions/{plain.json()['id']}/context")
        assert unknown.json()["error"]["code"] == "content_not_recorded"


async def test_it_is_verified_like_any_other() -> None:
    """Generated again from its recorded prompt, and the same token by token."""
    async with running_server(SCRIPT) as running:
        ask = {**ASK, "deterministic": True}
        made = await running.http.post("/v1/completions", json=ask, headers={"Idempotency-Key": "k"})
        verified = await running.http.post(f"/v1/chat/completions/{made.json()['id']}/verify")
        assert (verified.status_code, verified.json()["verdict"]) == (200, "exact"), verified.text


async def test_the_official_client_reads_them() -> None:
    """create, whole and streamed."""
    async with running_server(SCRIPT) as running, running.openai() as client:
        completion = await client.completions.create(model="default", prompt=["a", "b"], max_tokens=3, logprobs=1)
        assert [choice.text for choice in completion.choices] == [" Héllo!"] * 2
        stream = await client.completions.create(model="default", prompt="a", max_tokens=3, stream=True)
        assert "".join([choice.text async for chunk in stream for choice in chunk.choices]) == " Héllo!"
