"""Formats, tools and reasoning as openai-python sees them: streamed or not, alone or in a batch, always the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError
from pydantic import BaseModel

from tests.support.said import Said, every_way, whole
from tests.support.server import Server, prepare_home, serving
from tests.support.talking_model import make_talking_model

STARTER, TALKER = "smollm2-135m-instruct", "second"
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "London"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": CITY}}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
F = {"type": "function", "function": {"name": "f", "strict": True, "parameters": NOTHING}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}


MODELS = """
[[models]]
id = "smollm2-135m-instruct"
aliases = ["default"]

[[models]]
id = "second"
path = "{second}"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Iterator[Server]:
    """A server with the starter model, and one that knows tools and reasoning."""
    folder = tmp_path_factory.mktemp("structured")
    home = prepare_home(folder / "home", starter_model)
    talker = make_talking_model(folder / "talker", starter=starter_model)
    (home / "models.toml").write_text(MODELS.format(second=talker), encoding="utf-8")
    with serving(home) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    """openai-python, unmodified but for its base_url; parameters are passed by name, which its types do not follow."""
    with server.client() as made:
        yield made


def is_city(said: Said) -> bool:
    """Whether the content satisfies the schema."""
    return json.loads(said.content or "")["city"] in {"Paris", "London"}


def calls_weather(said: Said) -> bool:
    """Whether the answer is calls of the function, with arguments that satisfy its schema."""
    right = all(name == "get_weather" and is_city(said._replace(content=text)) for name, text in said.calls)
    return right and bool(said.calls) and said.content is None and said.finish_reason in {"tool_calls", "length"}


def matches(pattern: str) -> Any:
    """A check of the whole content."""
    return lambda said: re.fullmatch(pattern, said.content or "") is not None


ONE_CALL = {"tools": [WEATHER], "parallel_tool_calls": False}
OWN_WORDS = Said("Paris is nice", "plan first", (("f", "{}"),), "tool_calls", 4)
CLOSING_BRACE = "109"
"""Its token id."""
FEATURES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "plain, real model": (STARTER, {"max_tokens": 8}, lambda said: (said.finish_reason, said.tokens) == ("length", ())),
    "seed, real model": (STARTER, {"temperature": 1.0, "seed": 5, "max_tokens": 8}, lambda said: said.content),
    "stop, real model": (
        STARTER,
        {"stop": [" the", " is"], "max_tokens": 40},
        lambda said: said.finish_reason == "stop" and not re.search(" the| is", said.content),
    ),
    "logprobs, real model": (
        STARTER,
        {"logprobs": True, "top_logprobs": 2, "max_tokens": 6},
        lambda said: "".join(said.tokens) == said.content,
    ),
    "choices": (TALKER, {"n": 3, "temperature": 2.0, "seed": 2, "max_tokens": 12}, lambda said: said.finish_reason),
    "object": (
        TALKER,
        {"response_format": {"type": "json_object"}, "logit_bias": {CLOSING_BRACE: 100}},
        lambda said: json.loads(said.content) == {},
    ),
    "schema, real model": (STARTER, {"response_format": SCHEMA}, is_city),
    "required call": (TALKER, {**ONE_CALL, "tool_choice": "required"}, calls_weather),
    "schema behind reasoning": (TALKER, {"response_format": SCHEMA}, lambda said: is_city(said) and said.reasoning),
    "object, cut off": (TALKER, {"response_format": {"type": "json_object"}, "max_tokens": 12}, matches(r"\{.*")),
    "regex": (TALKER, {"extra_body": {"structured_outputs": {"regex": "[a-c]{3}/x"}}}, matches("[a-c]{3}/x")),
    "choice": (TALKER, {"extra_body": {"structured_outputs": {"choice": ["yes", "no"]}}}, matches("yes|no")),
    "grammar": (TALKER, {"extra_body": {"structured_outputs": {"grammar": 'start: "a" "b" "."'}}}, matches(r"ab\.")),
    "named call": (TALKER, {"tools": [F, WEATHER], "tool_choice": NAMED}, calls_weather),
    "several calls": (
        TALKER,
        {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 400, "logit_bias": {"2": -100, "198": 100}},
        lambda said: calls_weather(said) and len(said.calls) > 1,
    ),
    "schema or call": (
        TALKER,
        {"tools": [F], "response_format": SCHEMA},
        lambda said: said.calls == (("f", "{}"),) or is_city(said),
    ),
    "own call": (TALKER, {"tools": [{**F, "function": {"name": "f"}}]}, lambda said: said == OWN_WORDS),
    "own call, strict": (TALKER, {"tools": [F], "tool_choice": "auto"}, lambda said: said.reasoning == "plan first"),
    "no call allowed": (TALKER, {"tools": [F], "tool_choice": "none"}, lambda said: "<tool_call>" in said.content),
    "reasoning": (TALKER, {}, lambda said: (said.reasoning, said.reasoning_tokens) == ("plan first", 4)),
}


@pytest.mark.parametrize(("model", "members", "holds"), FEATURES.values(), ids=FEATURES)
def test_every_feature_streamed_or_not_alone_or_in_a_batch(
    client: Any, model: str, members: dict[str, Any], holds: Any
) -> None:
    """The same request gives the same answer on every way, and it is what was asked for."""
    asked = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 60, **members}
    answer = every_way(client, asked)
    assert len(answer) == members.get("n", 1)
    assert all(map(holds, answer)), answer


def test_a_round_trip_through_a_tool(client: Any, server: Server) -> None:
    """The call is asked for, its result is sent, and the answer sees both; the log has all of it."""
    session = {"session_id": "tools"}
    asked: dict[str, Any] = {"model": STARTER, "temperature": 0, "max_tokens": 40, "extra_body": session, **ONE_CALL}
    calling = client.chat.completions.create(messages=QUESTION, tool_choice="required", **asked)
    message = calling.choices[0].message
    (call,) = message.tool_calls
    assert (message.content, calling.choices[0].finish_reason) == (None, "tool_calls")
    stray = {"role": "tool", "tool_call_id": "other", "content": "x"}
    for more, why in (([stray], "answers no call"), ([], "wait for their results")):
        with pytest.raises(BadRequestError, match=why):
            client.chat.completions.create(messages=[*QUESTION, message, *more], **asked)
    result = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    answer = client.chat.completions.create(messages=[*QUESTION, message, result], **asked)
    assert answer.choices[0].message.content
    context = httpx.get(f"{server.address}/v1/chat/completions/{answer.id}/context").json()
    assert [seen["role"] for seen in context["messages"]] == ["user", "assistant", "tool"]
    assert context["verdict"] == "matches"
    assert call.function.arguments in context["prompt"]["text"]
    assert "21 degrees" in context["prompt"]["text"]
    recorded = httpx.get(f"{server.address}/v1/sessions/tools/messages").json()["data"]
    assert [(one["role"], one["tool_call_id"]) for one in recorded][-2:] == [("tool", call.id), ("assistant", None)]
    assert recorded[1]["tool_calls"] == [call.model_dump()]


class City(BaseModel):
    """What the client parses an answer into."""

    city: str
    population: int


def test_answers_are_parsed_by_the_client(client: Any) -> None:
    """openai-python's ``parse`` makes a strict schema of a pydantic model, and an object of the answer."""
    parsed = client.chat.completions.parse(
        model=TALKER, messages=[{"role": "user", "content": "A city"}], response_format=City, seed=1, max_tokens=200
    )
    assert isinstance(parsed.choices[0].message.parsed, City)


DEEP: dict[str, Any] = {"type": "integer"}
for _ in range(200):
    DEEP = {"type": "array", "items": DEEP}
HOSTILE: dict[str, Any] = {
    "deep": DEEP,
    "wide": {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(5000)}},
    "large": {"enum": ["x" * 100_000]},
    "endless": {"$ref": "#"},
    "endless, by members": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "exploding": {
        "allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "null"}}} for j in range(10)]} for i in range(10)]
    },
    "remote": {"$ref": "http://example.com/schema"},
    "unsatisfiable": {"type": "object", "properties": {"a": False}, "required": ["a"]},
    "unsupported": {"not": {"type": "string"}},
    "bad pattern": {"type": "string", "pattern": "(?=a)b"},
    "bad type": {"type": "strin"},
}


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(30)
def test_hostile_schemas_are_refused(client: Any, schema: dict[str, Any]) -> None:
    """A clear 400 that names the parameter, before anything is generated; also where it is a tool's."""
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(model=TALKER, messages=QUESTION, response_format=named)
    assert (refused.value.code, str(refused.value.param)[:15]) == ("invalid_value", "response_format")
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object", **schema}}}
    if "type" not in schema:
        with pytest.raises(BadRequestError) as refused:
            client.chat.completions.create(model=TALKER, messages=QUESTION, tools=[tool])
        assert str(refused.value.param).startswith("tools")


def test_a_pattern_that_explodes_while_it_is_followed_ends_in_an_error(client: Any) -> None:
    """Work beyond the bounds is a 400 for this request; the others of the batch go on."""
    exploding = {"structured_outputs": {"regex": "((a?){100}){100}a{1000}"}}
    with pytest.raises(BadRequestError, match="cannot be followed"):
        client.chat.completions.create(model=TALKER, messages=QUESTION, extra_body=exploding, max_tokens=300)
    (after,) = whole(client, {"model": TALKER, "messages": QUESTION, "temperature": 0, "max_tokens": 60})
    assert after.content
