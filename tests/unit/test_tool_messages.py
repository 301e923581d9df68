"""Results answer calls: which calls wait, and what may not be said before they are answered."""

from __future__ import annotations

import pytest

from manent.domain.errors import InvalidValue
from manent.domain.messages import Message, Role, TextPart, ToolCall
from manent.domain.tool_messages import check_results, pending_calls


def calling(*ids: str) -> Message:
    """An assistant's message that calls functions."""
    calls = tuple(ToolCall(id=call_id, name="f", arguments="{}") for call_id in ids)
    return Message(message_id="m", role=Role.ASSISTANT, content=(), tool_calls=calls)


def result(call_id: str) -> Message:
    """A tool's message."""
    return Message(message_id="m", role=Role.TOOL, content=(TextPart(text="1"),), tool_call_id=call_id)


USER = Message(message_id="m", role=Role.USER, content=(TextPart(text="hi"),))


def test_calls_wait_until_each_has_its_result() -> None:
    """Only those of the last assistant's message count."""
    assert pending_calls([]) == pending_calls([USER]) == set()
    assert pending_calls([USER, calling("a", "b")]) == {"a", "b"}
    assert pending_calls([calling("x"), result("x"), calling("a", "b"), result("b")]) == {"a"}
    assert pending_calls([result("stray")]) == set()


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ([], [USER]),
        ([], [USER, calling("a"), result("a")]),
        ([USER, calling("a", "b")], [result("b"), result("a"), USER]),
        ([USER, calling("a", "b"), result("a")], [result("b")]),
    ],
)
def test_results_that_answer_calls_are_taken(stored: list[Message], sent: list[Message]) -> None:
    """In any order, in one request or several."""
    check_results(stored, sent)


@pytest.mark.parametrize(
    ("stored", "sent", "says"),
    [
        ([], [result("a")], "answers no call"),
        ([USER, calling("a")], [result("b")], "those that do: 'a'"),
        ([USER, calling("a"), result("a")], [result("a")], "answers no call"),
        ([USER, calling("a")], [USER], "before the results"),
        ([], [USER, calling("a", "b"), result("a")], "wait for their results: 'b'"),
        ([USER, calling("a")], [], "wait for their results: 'a'"),
    ],
)
def test_what_does_not_fit_is_refused(stored: list[Message], sent: list[Message], says: str) -> None:
    """The message says which calls wait."""
    with pytest.raises(InvalidValue, match=says):
        check_results(stored, sent)


def test_a_conversation_that_nobody_is_asked_to_answer_may_end_with_calls() -> None:
    """A history that is written down may stop anywhere."""
    check_results([], [USER, calling("a")], complete=False)
