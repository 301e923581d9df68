"""Request models: strict types, bounds, and what holds across parameters; then the command that comes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manent.adapters.http.chat_command import domain_messages, domain_seed, read_chat_request, read_session_request
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.wire_requests import ChatRequest
from manent.domain.messages import Role
from tests.support.fakes import CountingIds

USER = {"role": "user", "content": "hi"}


def read(**members: Any) -> ChatRequest:
    """Read a chat request with defaults that work."""
    return read_chat_request({"model": "m", "messages": [USER], **members}, messages_max=10)


@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ({"model": None}, "invalid_type", "model"),
        ({"model": 4}, "invalid_type", "model"),
        ({"model": ""}, "invalid_value", "model"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": {}}, "invalid_type", "messages"),
        ({"messages": [USER] * 11}, "invalid_value", "messages"),
        ({"temperature": "0.5"}, "invalid_type", "temperature"),
        ({"temperature": True}, "invalid_type", "temperature"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"temperature": -0.1}, "invalid_value", "temperature"),
        ({"temperature": float("inf")}, "invalid_value", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"top_p": 1.01}, "invalid_value", "top_p"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
        ({"max_tokens": "5"}, "invalid_type", "max_tokens"),
        ({"max_tokens": True}, "invalid_type", "max_tokens"),
        ({"max_completion_tokens": 10**12}, "invalid_value", "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "invalid_value", "max_completion_tokens"),
        ({"stop": ""}, "invalid_value", "stop"),
        ({"stop": ["a", ""]}, "invalid_value", "stop[1]"),
        ({"stop": ["a"] * 5}, "invalid_value", "stop"),
        ({"stop": [1]}, "invalid_type", "stop[0]"),
        ({"stop": 1}, "invalid_type", "stop"),
        ({"seed": 2**63}, "invalid_value", "seed"),
        ({"seed": -(2**63) - 1}, "invalid_value", "seed"),
        ({"seed": 1.0}, "invalid_type", "seed"),
        ({"stream": "true"}, "invalid_type", "stream"),
        ({"stream": 1}, "invalid_type", "stream"),
        ({"stream_options": {}}, "invalid_value", "stream_options"),
        ({"stream": True, "stream_options": []}, "invalid_type", "stream_options"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        ({"metadata": []}, "invalid_type", "metadata"),
        ({"user": 1}, "invalid_type", "user"),
        ({"user": "u" * 513}, "invalid_value", "user"),
        ({"store": "yes"}, "invalid_type", "store"),
        ({"session_id": 5}, "invalid_type", "session_id"),
        ({"session_id": "s", "session_mode": "merge"}, "invalid_value", "session_mode"),
        ({"session_mode": "auto"}, "invalid_value", "session_mode"),
        ({"session_id": "s", "store": False}, "invalid_value", "store"),
        ({"truncation": "middle"}, "invalid_value", "truncation"),
        ({"parallel_tool_calls": "no"}, "invalid_type", "parallel_tool_calls"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_wrong_value_is_refused_by_name(members: dict[str, Any], code: str, param: str) -> None:
    """A value of the wrong type or out of its range is a 400 that names the parameter; nothing is coerced."""
    with pytest.raises(RequestRefused) as refused:
        read(**members)
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize("name", ["model", "messages"])
def test_what_is_required_is_asked_for(name: str) -> None:
    """A missing parameter is named."""
    body = {"model": "m", "messages": [USER]}
    del body[name]
    with pytest.raises(RequestRefused) as refused:
        read_chat_request(body, messages_max=10)
    assert (refused.value.code, refused.value.param) == ("missing_required_parameter", name)


@pytest.mark.parametrize("name", sorted(set(ChatRequest.model_fields) - {"model", "messages"}))
def test_null_is_as_good_as_absent(name: str) -> None:
    """SDKs send null for what was not set."""
    assert read(**{name: None}) == read()


@pytest.mark.parametrize("members", [{"temperature": 0}, {"temperature": 2}, {"top_p": 1}, {"seed": -(2**63)}])
def test_the_ends_of_ranges_are_inside(members: dict[str, Any]) -> None:
    """Integers stand for numbers, and bounds belong to their range."""
    assert read(**members).model_dump(include=set(members)) == members


def test_both_limits_may_say_the_same() -> None:
    """The two names of one limit contradict each other only where they differ."""
    assert read(max_tokens=5, max_completion_tokens=5).max_completion_tokens == 5


@given(st.integers(-(2**63), 2**63 - 1))
@example(-(2**63))
def test_every_seed_is_one_of_the_domain(seed: int) -> None:
    """Signed seeds become non-negative ones below 2**63; those that are so already stay."""
    assert 0 <= domain_seed(seed) < 2**63
    if seed >= 0:
        assert domain_seed(seed) == seed


def test_messages_become_the_domains() -> None:
    """Developer is system, parts stay parts, and each message gets an id of its own."""
    asked = read(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ann"},
        ]
    )
    first, second = domain_messages(asked.messages, CountingIds())
    assert (first.role, first.text) == (Role.SYSTEM, "be brief")
    assert [part.text for part in second.content] == ["a", "b"]
    assert second.name == "ann"
    assert first.message_id != second.message_id


def test_long_values_are_cut_in_messages() -> None:
    """An error repeats enough of a value to be recognized, and no more."""
    with pytest.raises(RequestRefused) as refused:
        read(session_id="s", session_mode="x" * 10_000)
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"ttl_s": 0}, "invalid_value", "ttl_s"),
        ({"ttl_s": "60"}, "invalid_type", "ttl_s"),
        ({"ttl": 60}, "unknown_parameter", "ttl"),
        ({"messages": [{"role": "function", "content": "x"}]}, "unsupported_parameter", "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "missing_required_parameter", "messages[0].tool_call_id"),
    ],
)
def test_a_request_for_a_session_is_as_strict(body: dict[str, Any], code: str, param: str) -> None:
    """Sessions are started under the same rules."""
    with pytest.raises(RequestRefused) as refused:
        read_session_request(body, messages_max=10)
    assert (refused.value.code, refused.value.param) == (code, param)
