"""The parameter table: what is refused is refused by name, what asks for nothing passes, nothing is ignored."""

from __future__ import annotations

from typing import Any

import pytest

from manent.adapters.http.chat_command import read_chat_request
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.parameter_table import Parameter, Treatment, asks_nothing
from manent.adapters.http.parameters import CHAT_PARAMETERS, MESSAGE_PARAMETERS
from manent.adapters.http.wire_requests import ChatMessage, ChatRequest

USER = {"role": "user", "content": "hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LONG_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "1" * 2**20}}
LONG_PARAM = "messages[1].tool_calls[0].function.arguments"
FUNCTION = {"type": "function", "function": {"name": "f"}}
ASKING: dict[str, list[Any]] = {
    "modalities": [["text", "audio"], ["audio"]],
    "functions": [[{"name": "f"}]],
    "function_call": [{"name": "f"}],
    "audio": [{"voice": "alloy", "format": "wav"}],
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
    """JSON's 0 and false are different values, also where Python says they are equal."""
    row = Parameter(name="x", treatment=Treatment.REFUSED, says="no", neutral=(False, 1))
    assert asks_nothing(row, False)  # noqa: FBT003 (JSON's false is what is tested)
    assert not asks_nothing(row, 0)
    assert asks_nothing(row, 1.0)
    assert not asks_nothing(row, True)  # noqa: FBT003 (JSON's true is what is tested)


BIASES = {str(token): 1 for token in range(1025)}


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("n", 0, "invalid_value"),
        ("n", 9, "invalid_value"),
        ("n", "1", "invalid_type"),
        ("n", True, "invalid_type"),
        ("n", 1.5, "invalid_type"),
        ("top_k", -2, "invalid_value"),
        ("min_p", 1.1, "invalid_value"),
        ("frequency_penalty", 2.1, "invalid_value"),
        ("presence_penalty", -2.1, "invalid_value"),
        ("presence_penalty", False, "invalid_type"),
        ("repetition_penalty", 0, "invalid_value"),
        ("repetition_penalty", 2.5, "invalid_value"),
        ("logit_bias", [], "invalid_type"),
        ("logit_bias", BIASES, "invalid_value"),
        ("stop_token_ids", [-1], "invalid_value"),
        ("stop_token_ids", ["2"], "invalid_type"),
        ("stop_token_ids", list(range(65)), "invalid_value"),
        ("logprobs", 1, "invalid_type"),
        ("top_logprobs", 5, "invalid_value"),
        ("priority", "high", "invalid_value"),
        ("timeout_s", 0, "invalid_value"),
        ("timeout_s", 86_401, "invalid_value"),
        ("temperature", float("nan"), "invalid_value"),
    ],
)
def test_a_value_that_cannot_be_honored_is_refused_with_its_name(name: str, value: Any, code: str) -> None:
    """Bounds and types of every parameter of sampling; top_logprobs alone asks for nothing that could be given."""
    found, param = refusal(**{name: value})
    assert (found, (param or "").partition("[")[0]) == (code, name)


@pytest.mark.parametrize("biases", [{"-1": 1}, {"x": 1}, {"1": 101}, {"1": "1"}, {"": 0}])
def test_a_bad_bias_is_refused_with_its_path(biases: dict[str, Any]) -> None:
    """Token ids are decimal digits, biases numbers from -100 to 100."""
    code, param = refusal(logit_bias=biases)
    assert code in {"invalid_value", "invalid_type"}
    assert (param or "").startswith("logit_bias")


def test_twenty_of_the_most_probable_tokens_may_be_asked_for() -> None:
    """OpenAI's bound; 21 is refused, and 0 asks for nothing."""
    assert read(logprobs=True, top_logprobs=20).top_logprobs == 20
    assert refusal(logprobs=True, top_logprobs=21) == ("invalid_value", "top_logprobs")
    assert read(top_logprobs=0).top_logprobs == 0


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
        ({"role": "tool", "content": "x"}, "missing_required_parameter", "messages[1].tool_call_id"),
        ({"role": "user", "content": "x", "tool_call_id": "c"}, "invalid_value", "messages[1].tool_call_id"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "invalid_value", "messages[1].tool_calls"),
        ({"role": "assistant", "tool_calls": [LONG_CALL]}, "invalid_value", LONG_PARAM),
        ({"role": "assistant", "content": None, "tool_calls": []}, "invalid_type", "messages[1].content"),
        ({"role": "function", "content": "x", "name": "f"}, "unsupported_parameter", "messages[1].role"),
        ({"role": "assistant", "tool_calls": [{}]}, "missing_required_parameter", "messages[1].tool_calls[0].id"),
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


@pytest.mark.parametrize("kind", ["input_audio", "file", "refusal"])
def test_a_part_that_cannot_be_read_is_refused_with_its_path(kind: str) -> None:
    """Audio and files are named by the path of their type."""
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
