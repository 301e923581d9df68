"""The parameter table: what is refused is refused by name, what asks for nothing passes, nothing is ignored."""

from __future__ import annotations

from typing import Any

import pytest

from manent.adapters.http.chat_command import read_chat_request
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.parameters import CHAT_PARAMETERS, MESSAGE_PARAMETERS, Treatment
from manent.adapters.http.wire_requests import ChatMessage, ChatRequest

USER = {"role": "user", "content": "hi"}
ASKING: dict[str, list[Any]] = {
    "n": [2, 0, "1", True, 1.5],
    "service_tier": ["flex", "priority", 1],
    "response_format": [{"type": "json_object"}, {"type": "json_schema", "json_schema": {}}, "text"],
    "modalities": [["text", "audio"], ["audio"]],
    "tools": [[{"type": "function", "function": {"name": "f"}}]],
    "tool_choice": ["required", {"type": "function", "function": {"name": "f"}}],
    "functions": [[{"name": "f"}]],
    "function_call": [{"name": "f"}],
    "logprobs": [True, 0],
    "top_logprobs": [1, 20],
    "logit_bias": [{"50256": -100}],
    "frequency_penalty": [0.5, -2],
    "presence_penalty": [0.5, True],
    "reasoning_effort": ["low", "none"],
    "verbosity": ["low", "high"],
    "audio": [{"voice": "alloy", "format": "wav"}],
    "prediction": [{"type": "content", "content": "x"}],
    "web_search_options": [{}],
    "moderation": [{"model": "omni-moderation-latest"}],
}
REFUSED = [row for row in CHAT_PARAMETERS if row.treatment is Treatment.REFUSED]


def read(**members: Any) -> ChatRequest:
    """Read a chat request with defaults that work."""
    return read_chat_request({"model": "m", "messages": [USER], **members}, messages_max=10)


def refusal(**members: Any) -> tuple[str, str | None]:
    """The code and parameter of the refusal of a request."""
    with pytest.raises(RequestRefused) as refused:
        read(**members)
    return refused.value.code, refused.value.param


def test_every_refused_row_has_values_that_ask_for_something() -> None:
    """The table of this test covers the product's table."""
    assert set(ASKING) == {row.name for row in REFUSED}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ASKING.items() for value in values])
def test_what_is_not_supported_is_refused_by_name(name: str, value: Any) -> None:
    """A value that asks for what Manent cannot do is a 400 with the parameter's name."""
    assert refusal(**{name: value}) == ("unsupported_parameter", name)


@pytest.mark.parametrize(("name", "value"), [(row.name, value) for row in REFUSED for value in (None, *row.neutral)])
def test_what_asks_for_nothing_is_accepted(name: str, value: Any) -> None:
    """SDKs send defaults along: null and OpenAI's documented no-effect values pass."""
    assert read(**{name: value}) == read()


def test_zero_is_not_false() -> None:
    """JSON's 0 and false are different values, also where Python says they are equal; 0.0 is 0."""
    assert refusal(logprobs=0) == ("unsupported_parameter", "logprobs")
    assert refusal(presence_penalty=False) == ("unsupported_parameter", "presence_penalty")
    assert read(presence_penalty=0.0) == read()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("temprature", "temperature"), ("max_new_tokens", "max_tokens"), ("sessionid", "session_id"), ("zzz", "")],
)
def test_an_unknown_parameter_is_refused_with_the_nearest_name(name: str, hint: str) -> None:
    """A misspelt parameter is never ignored in silence."""
    with pytest.raises(RequestRefused) as refused:
        read(**{name: 1})
    assert (refused.value.code, refused.value.param) == ("unknown_parameter", name)
    assert (f"'{hint}'" in refused.value.message) is bool(hint)


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": "c"}, "unsupported_parameter", "messages[1].role"),
        ({"role": "function", "content": "x", "name": "f"}, "unsupported_parameter", "messages[1].role"),
        ({"role": "assistant", "tool_calls": [{}]}, "unsupported_parameter", "messages[1].tool_calls"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "unsupported_parameter", "messages[1].audio"),
        ({"role": "user", "content": "x", "foo": 1}, "unknown_parameter", "messages[1].foo"),
        ({"role": "boss", "content": "x"}, "invalid_value", "messages[1].role"),
        ({"role": 7, "content": "x"}, "invalid_value", "messages[1].role"),
        ({"content": "x"}, "missing_required_parameter", "messages[1].role"),
        ({"role": "user"}, "missing_required_parameter", "messages[1].content"),
        ({"role": "user", "content": None}, "invalid_type", "messages[1].content"),
        ({"role": "user", "content": 3}, "invalid_type", "messages[1].content"),
        ({"role": "user", "content": []}, "invalid_value", "messages[1].content"),
        ({"role": "user", "content": ["x"]}, "invalid_type", "messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "missing_required_parameter", "messages[1].content[0].text"),
        ({"role": "user", "content": "x", "name": "a b"}, "invalid_value", "messages[1].name"),
        ("hello", "invalid_type", "messages[1]"),
    ],
)
def test_a_bad_message_is_refused_with_its_path(message: Any, code: str, param: str) -> None:
    """The path leads to the member at fault, whatever is wrong with it."""
    assert refusal(messages=[USER, message]) == (code, param)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "refusal"])
def test_a_part_that_is_no_text_is_refused_with_its_path(kind: str) -> None:
    """Images, audio and files are named by the path of their type."""
    parts = [{"type": "text", "text": "x"}, {"type": kind, kind: {}}]
    assert refusal(messages=[{"role": "user", "content": parts}]) == (
        "unsupported_parameter",
        "messages[0].content[1].type",
    )


def test_an_answer_may_be_sent_back_as_it_came() -> None:
    """Clients resend the assistant's message with all its empty members; they ask for nothing."""
    answer = {"role": "assistant", "content": "x"} | {
        row.name: None for row in MESSAGE_PARAMETERS if row.treatment is Treatment.REFUSED
    }
    asked = read(messages=[USER, {**answer, "annotations": [], "tool_calls": []}, USER])
    assert asked.messages[1] == ChatMessage(role="assistant", content="x")


def test_stream_options_are_judged_too() -> None:
    """Members of stream_options are known, or refused with their path."""
    assert refusal(stream=True, stream_options={"include_usages": True}) == (
        "unknown_parameter",
        "stream_options.include_usages",
    )
    assert read(stream=True, stream_options={"include_usage": True, "include_obfuscation": False}).includes_usage
