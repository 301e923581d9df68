"""Requests of Anthropic's API: what they mean to the domain, and what is refused by its name and path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from manent.adapters.http.anthropic_command import read_count_request, read_message_request
from manent.adapters.http.anthropic_content import domain_conversation
from manent.adapters.http.anthropic_shape import shape_of_message
from manent.adapters.http.errors import RequestRefused
from manent.adapters.images.fetching import ImageFetcher
from manent.adapters.images.reader import CheckedImages
from manent.domain.messages import Message
from manent.domain.output_shape import OutputShape, ReasoningEffort, ToolChoice
from tests.support.fakes import CountingIds
from tests.support.pictures import data_url, picture

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "weather", "description": "The weather.", "input_schema": SCHEMA}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
PNG = data_url(picture()).partition("base64,")[2]
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


def text(words: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": words}


def use(call_id: str, **given: Any) -> dict[str, Any]:
    """A block that calls a tool, with members that an answer has."""
    return {"type": "tool_use", "id": call_id, "name": "f", "input": given, "caller": {"type": "direct"}}


def result(call_id: str, content: Any = "21", **members: Any) -> dict[str, Any]:
    """A block with the result of a tool."""
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **members}


def turn(*content: Any, role: str = "user") -> dict[str, Any]:
    """A turn of blocks."""
    return {"role": role, "content": list(content)}


async def said(*messages: Any, in_session: bool = False, **members: Any) -> list[Message]:
    """The domain's messages of a request."""
    asked = read_count_request({"model": "m", "messages": list(messages), **members}, messages_max=50)
    images = CheckedImages(ImageFetcher("data"))
    return list(await domain_conversation(asked, ids=CountingIds(), images=images, in_session=in_session))


def shown(messages: list[Message]) -> list[tuple[Any, ...]]:
    """What each message says, without what is not there."""
    return [
        tuple(
            one
            for one in (
                message.role.value,
                message.text,
                message.reasoning,
                message.tool_call_id,
                *((call.id, call.arguments) for call in message.tool_calls),
                *(f"image after {image.text_before}" for image in message.images),
            )
            if one is not None
        )
        for message in messages
    ]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER], [("user", "hi")]),
        ([USER, {"role": "user", "content": "there"}], [("user", "hi\n\nthere")]),
        ([turn(text("a"), text("b"), IMAGE, text("c"))], [("user", "abc", "image after 2")]),
        ([turn(IMAGE), turn(text("what?"))], [("user", "what?", "image after 0")]),
        (
            [
                USER,
                turn({"type": "thinking", "thinking": "Hm.", "signature": "s"}, text("Let me see."), role="assistant"),
                turn({"type": "redacted_thinking", "data": "x"}, use("a", city="Ålen"), use("b"), role="assistant"),
                turn(result("a"), result("b", [text("no "), text("city")], is_error=True), text("and?")),
            ],
            [
                ("user", "hi"),
                ("assistant", "Let me see.", "Hm.", ("a", '{"city":"Ålen"}'), ("b", "{}")),
                ("tool", "21", "a"),
                ("tool", "Error: no city", "b"),
                ("user", "and?"),
            ],
        ),
        ([USER, turn(role="assistant"), USER], [("user", "hi"), ("assistant", ""), ("user", "hi")]),
        ([USER, {"role": "system", "content": "Be brief."}], [("user", "hi"), ("system", "Be brief.")]),
    ],
)
async def test_turns_become_messages(messages: list[Any], expected: list[tuple[Any, ...]]) -> None:
    """Turns of one role are one; results of tools are messages of their own; nothing that was said is lost."""
    assert shown(await said(*messages)) == expected


async def test_a_users_turns_stay_apart_in_a_session() -> None:
    """It may have the first of them already; an assistant's text and calls are one message there, too."""
    calling = [turn(text("So."), role="assistant"), turn(use("a"), role="assistant")]
    found = await said(USER, USER, *calling, turn(result("a"), text("and?"), IMAGE), USER, in_session=True)
    assert shown(found) == [
        ("user", "hi"),
        ("user", "hi"),
        ("assistant", "So.", ("a", "{}")),
        ("tool", "21", "a"),
        ("user", "and?", "image after 1"),
        ("user", "hi"),
    ]


async def test_the_system_prompt_stands_first() -> None:
    """A string, or blocks with a blank line between them; an empty one is none."""
    assert shown(await said(USER, system="Be brief."))[0] == ("system", "Be brief.")
    blocks = [{**text("Be brief."), "cache_control": {"type": "ephemeral"}}, text("Be kind.")]
    assert shown(await said(USER, system=blocks))[0] == ("system", "Be brief.\n\nBe kind.")
    assert shown(await said(USER, system=[])) == shown(await said(USER, system="")) == [("user", "hi")]


def shape(**members: Any) -> OutputShape | None:
    """The shape of a request."""
    return shape_of_message(read_count_request({"model": "m", "messages": [USER], **members}, messages_max=50))


def test_tools_and_choices() -> None:
    """Tools of the client's are functions; Anthropic's own are left out; the choice is the domain's."""
    assert shape() is shape(tools=[SEARCH], tool_choice={"type": "auto"}) is None
    found = shape(tools=[{**TOOL, "type": "custom", "strict": True, "cache_control": None}, SEARCH])
    assert found is not None
    assert [(tool.name, tool.strict) for tool in found.tools] == [("weather", True)]
    choices: list[tuple[dict[str, Any], tuple[ToolChoice, str | None, bool]]] = [
        ({"type": "any", "disable_parallel_tool_use": True}, (ToolChoice.REQUIRED, None, False)),
        ({"type": "tool", "name": "weather"}, (ToolChoice.NAMED, "weather", True)),
        ({"type": "none"}, (ToolChoice.NONE, None, True)),
    ]
    for given, expected in choices:
        found = shape(tools=[TOOL], tool_choice=given)
        assert found is not None
        assert (found.tool_choice, found.tool_name, found.parallel) == expected


@pytest.mark.parametrize(
    ("members", "effort"),
    [
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, ReasoningEffort.NONE),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, ReasoningEffort.LOW),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, ReasoningEffort.MEDIUM),
        ({"thinking": {"type": "enabled", "budget_tokens": 32000}}, ReasoningEffort.HIGH),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}, ReasoningEffort.XHIGH),
        ({"thinking": {"type": "between_tools"}, "output_config": {}}, None),
    ],
)
def test_thinking_is_told_to_the_template(members: dict[str, Any], effort: ReasoningEffort | None) -> None:
    """Not to think, an effort by its name, or the one that a budget comes nearest to."""
    found = shape(**members)
    assert (None if found is None else found.reasoning_effort) is effort


@pytest.mark.parametrize(
    "members",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_config": {"effort": None}, "output_format": {"type": "json_schema", "schema": SCHEMA}},
    ],
)
def test_a_format_is_enforced(members: dict[str, Any]) -> None:
    """By today's name, and by the one that clients had for it before."""
    found = shape(**members)
    assert found is not None
    assert found.format is not None
    assert json.loads(found.format.definition) == SCHEMA


NAMED = "messages[0].content[0]"
FILE = {"type": "image", "source": {"type": "file", "file_id": "f"}}


@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ({"max_tokens": None}, "invalid_type", "max_tokens"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": [USER] * 51}, "invalid_value", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{**USER, "name": "x"}]}, "invalid_value", "messages[0].name"),
        ({"messages": [USER, turn(text("So"), role="assistant")]}, "unsupported_parameter", "messages[1]"),
        ({"messages": [turn({"type": "document", "source": {}})]}, "unsupported_parameter", f"{NAMED}.type"),
        ({"messages": [turn({"text": "x"})]}, "missing_required_parameter", f"{NAMED}.type"),
        ({"messages": [turn(FILE)]}, "unsupported_parameter", f"{NAMED}.source.type"),
        (
            {"messages": [turn(result("a", [{"type": "document"}]))]},
            "unsupported_parameter",
            f"{NAMED}.content[0].type",
        ),
        ({"stop_sequences": ["x"] * 65}, "invalid_value", "stop_sequences"),
        ({"stop": ["x"]}, "unknown_parameter", "stop"),
        ({"container": "c"}, "unsupported_parameter", "container"),
        ({"mcp_servers": [{"type": "url"}]}, "unsupported_parameter", "mcp_servers"),
        ({"metadata": {"user": "x"}}, "invalid_value", "metadata.user"),
        ({"thinking": {"type": "enabled"}}, "missing_required_parameter", "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "invalid_value", "thinking.budget_tokens"),
        ({"tools": [{"name": "f"}]}, "missing_required_parameter", "tools[0].input_schema"),
        ({"tools": [{"name": "f", "input_schema": {"type": "array"}}]}, "invalid_value", "tools[0].input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "missing_required_parameter", "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "invalid_value", "tool_choice.name"),
        (
            {"tools": [TOOL, SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}},
            "unsupported_parameter",
            "tool_choice.name",
        ),
        ({"tools": [SEARCH], "tool_choice": {"type": "any"}}, "unsupported_parameter", "tool_choice"),
        ({"session_mode": "strict"}, "invalid_value", "session_mode"),
        ({"session_id": "s", "store": False}, "invalid_value", "store"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(members: dict[str, Any], code: str, param: str) -> None:
    """The code says what kind of mistake it is, the path where."""
    with pytest.raises(RequestRefused) as refused:
        read_message_request({"model": "m", "max_tokens": 9, "messages": [USER], **members}, messages_max=50)
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        (turn(use("a")), "invalid_value", "messages[0].content[0]"),
        (turn({"type": "thinking", "thinking": "x", "signature": ""}), "invalid_value", "messages[0].content[0]"),
        (turn(text("x"), result("a"), role="assistant"), "invalid_value", "messages[0].content[1]"),
        (turn(IMAGE, role="assistant"), "invalid_value", "messages[0].content[0]"),
        (turn(use("a"), role="system"), "invalid_value", "messages[0].content[0]"),
        (turn(use("a", x="y" * 2**18), role="assistant"), "invalid_value", "messages[0].content[0].input"),
        (turn(), "invalid_value", "messages[0].content"),
        (turn(result("a", [IMAGE])), "unsupported_parameter", "messages[0].content[0].content[0]"),
    ],
)
async def test_what_is_in_the_wrong_turn_is_refused_with_its_path(message: Any, code: str, param: str) -> None:
    """Calls are the assistant's, results and images a user's; an empty turn says nothing."""
    with pytest.raises(RequestRefused) as refused:
        await said(message)
    assert (refused.value.code, refused.value.param) == (code, param)
