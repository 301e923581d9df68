"""What of the messages that a client sends is new."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.domain.errors import HistoryConflict, InvalidValue
from manent.domain.events import SessionEvent
from manent.domain.messages import Message, Role, ToolCall, same_messages
from manent.domain.reconcile import SessionMode, reconcile
from manent.domain.session import SessionState
from manent.domain.session_fold import fold
from tests.support.conversation import (
    ANN,
    NOW_US,
    assistant,
    failed,
    given,
    message,
    requested,
    revised,
    said,
    started,
    system,
    system_replaced,
    user,
)


def sent(*messages: Message, mode: str = "auto") -> Callable[[SessionState], list[SessionEvent]]:
    """A client sends ``messages``."""
    return lambda state: reconcile(state, messages, mode=SessionMode(mode), by=ANN, now_us=NOW_US)


HELLO = (started(), said("user", "hi"), said("assistant", "hello"))


def test_a_new_message_is_appended() -> None:
    """A client that sends its last message only adds it to the history."""
    given(*HELLO).when(sent(user("and now?"))).then(said("user", "and now?"))


def test_a_resent_history_is_appended_once() -> None:
    """A client that resends the whole history adds only what is new."""
    given(*HELLO).when(sent(user("hi"), assistant("hello"), user("and now?"))).then(said("user", "and now?"))


def test_white_space_at_the_ends_does_not_count() -> None:
    """Clients trim answers; that is no departure."""
    given(*HELLO).when(sent(user(" hi\n"), assistant("hello "), user("x"))).then(said("user", "x"))


@pytest.mark.parametrize(
    ("stored", "resent", "is_same"),
    [
        ('{"a": 1, "b": [true]}', '{"b":[true],"a":1}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ('{"a": 1}', '{"a": true}', False),
        ("no JSON ", "no JSON", True),
        ("no JSON", "{}", False),
    ],
)
def test_arguments_count_by_what_they_say(stored: str, resent: str, *, is_same: bool) -> None:
    """Clients that keep the arguments of a call as a value send it back in a spelling of their own."""
    one, other = (
        Message(
            message_id="m", role=Role.ASSISTANT, content=(), tool_calls=(ToolCall(id="c", name="f", arguments=text),)
        )
        for text in (stored, resent)
    )
    assert same_messages([one], [other]) is is_same


def test_white_space_within_counts() -> None:
    """An edit inside a message is an edit."""
    given(*HELLO).when(sent(user("h i"), assistant("hello"), user("x"))).then(
        revised(0, "msg_user_hi"), said("user", "h i"), said("assistant", "hello"), said("user", "x")
    )


def test_a_retry_is_not_appended_again() -> None:
    """After a failure the same message is sent again, alone or with its history, and stands once."""
    past = (*HELLO, said("user", "more"), requested(), failed())
    given(*past).when(sent(user("more"))).then()
    given(*past).when(sent(user("hi"), assistant("hello"), user("more"))).then()


def test_a_retry_of_several_messages_is_recognized() -> None:
    """The unanswered end may be longer than one message."""
    past = (*HELLO, said("user", "a"), said("user", "b"), requested(), failed())
    given(*past).when(sent(user("a"), user("b"))).then()
    given(*past).when(sent(user("b"))).then()
    given(*past).when(sent(user("a"))).then(said("user", "a"))


def test_the_same_words_after_an_answer_are_a_new_turn() -> None:
    """Saying again what was answered already is not a retry."""
    given(*HELLO).when(sent(user("hi"))).then(said("user", "hi"))


def test_an_edit_revises_the_history() -> None:
    """A resent history that departs wins: the state drops the old turns from there on."""
    past = (*HELLO, said("user", "old"), said("assistant", "answer"))
    given(*past).when(sent(user("hi"), assistant("hello"), user("new"))).then(
        revised(2, "msg_user_old"), said("user", "new")
    )


def test_a_regeneration_drops_the_answer() -> None:
    """A history resent without its last answer asks for another one."""
    past = (*HELLO, said("user", "more"), said("assistant", "answer"))
    given(*past).when(sent(user("hi"), assistant("hello"), user("more"))).then(revised(3, "msg_assistant_answer"))


def test_a_compaction_by_the_client_revises_from_the_start() -> None:
    """A client that summarizes its history replaces all of it."""
    given(*HELLO).when(sent(user("summary"), assistant("ok"), user("go on"))).then(
        revised(0, "msg_user_hi"), said("user", "summary"), said("assistant", "ok"), said("user", "go on")
    )


def test_a_differing_system_message_alone_replaces_that_message() -> None:
    """Changing the system prompt keeps the turns."""
    past = (started(), said("system", "old"), said("user", "hi"), said("assistant", "hello"))
    given(*past).when(sent(system("new"), user("hi"), assistant("hello"), user("x"))).then(
        system_replaced("new"), said("user", "x")
    )
    given(*past).when(sent(system("new"), user("x"))).then(system_replaced("new"), said("user", "x"))


def test_a_repeated_system_message_is_not_appended() -> None:
    """A client that sends its system prompt with each message does not pile it up."""
    past = (started(), said("system", "be kind"), said("user", "hi"), said("assistant", "hello"))
    given(*past).when(sent(system("be kind "), user("x"))).then(said("user", "x"))


def test_a_stored_system_message_need_not_be_resent() -> None:
    """The system prompt given at the start stays when the client sends turns only."""
    past = (started(), said("system", "be kind"), said("user", "hi"), said("assistant", "hello"))
    given(*past).when(sent(user("hi"), assistant("hello"), user("x"))).then(said("user", "x"))


def test_a_system_message_and_a_turn_may_both_depart() -> None:
    """A revision and a new system prompt come together without disturbing each other's places."""
    past = (started(), said("system", "old"), said("user", "hi"), said("assistant", "hello"), said("user", "a"))
    events = reconcile(
        given(*past).state,
        [system("new"), system("too"), user("hi"), assistant("hallo"), user("b")],
        mode=SessionMode.AUTO,
        by=ANN,
        now_us=NOW_US,
    )
    after = fold(given(*past).state, events)
    assert [m.text for m in after.messages] == ["new", "too", "hi", "hallo", "b"]


def test_append_never_compares() -> None:
    """In mode ``append`` everything that is sent is new."""
    given(*HELLO).when(sent(user("hi"), assistant("hello"), mode="append")).then(
        said("user", "hi"), said("assistant", "hello")
    )


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([user("hi"), assistant("hullo"), user("x")], "messages[1]"),
        ([user("ho"), assistant("hello")], "messages[0]"),
        ([system("new"), user("hi"), assistant("hello"), user("x")], "messages[0]"),
    ],
)
def test_strict_refuses_a_departure_and_says_where(messages: Sequence[Message], place: str) -> None:
    """In mode ``strict`` nothing is revised; the error names the place."""
    with pytest.raises(HistoryConflict) as caught:
        given(*HELLO).when(sent(*messages, mode="strict"))
    assert caught.value.param == place
    assert place in caught.value.message


def test_strict_takes_what_agrees() -> None:
    """In mode ``strict`` new messages and whole histories are welcome."""
    given(*HELLO).when(sent(user("x"), mode="strict")).then(said("user", "x"))
    given(*HELLO).when(sent(user("hi"), assistant("hello"), user("x"), mode="strict")).then(said("user", "x"))


@pytest.mark.parametrize("mode", list(SessionMode))
def test_nothing_to_answer_is_refused(mode: SessionMode) -> None:
    """No messages are an error in every mode."""
    with pytest.raises(InvalidValue):
        given(*HELLO).when(sent(mode=mode))


MESSAGES = st.builds(
    message, st.sampled_from(["system", "user", "assistant", "tool"]), st.sampled_from(["a", "b", " a ", "c"])
)


@for_all(st.lists(MESSAGES, max_size=8), st.lists(MESSAGES, min_size=1, max_size=8))
def test_a_resent_history_is_what_the_state_becomes(stored: list[Message], messages: list[Message]) -> None:
    """After any resent history (it holds an answer) the conversation says exactly what the client says."""
    state = given(started(), *(said(m.role, m.text) for m in stored)).state
    after = fold(state, sent(*messages)(state))
    turns = [m for m in messages if m.role is not Role.SYSTEM]
    if not any(m.role is Role.ASSISTANT for m in turns) or messages[0].role is not Role.SYSTEM:
        return
    assert same_messages(list(after.messages), messages)


@for_all(st.lists(MESSAGES, max_size=8), st.lists(MESSAGES, min_size=1, max_size=8))
def test_sending_the_same_twice_adds_nothing(stored: list[Message], messages: list[Message]) -> None:
    """What was just reconciled and is still unanswered is a retry, unless it ends in an answer itself."""
    state = given(started(), *(said(m.role, m.text) for m in stored)).state
    after = fold(state, sent(*messages)(state))
    if messages[-1].role is Role.USER:
        assert sent(*messages)(after) == []


@for_all(st.lists(MESSAGES, max_size=8), st.lists(MESSAGES, min_size=1, max_size=8))
def test_strict_agrees_with_auto_or_refuses(stored: list[Message], messages: list[Message]) -> None:
    """Strict decides what auto decides wherever auto revises nothing."""
    state = given(started(), *(said(m.role, m.text) for m in stored)).state
    decided = sent(*messages)(state)
    if all(type(event).__name__ == "MessageAppended" for event in decided):
        assert sent(*messages, mode="strict")(state) == decided
    else:
        with pytest.raises(HistoryConflict):
            sent(*messages, mode="strict")(state)
