"""Sessions: what events add up to, and what is decided on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.domain.errors import (
    DomainError,
    InvalidValue,
    SessionAlreadyExists,
    SessionBusy,
    SessionClosed,
    SessionNotFound,
)
from manent.domain.events import CompletionOutcome, ErasedEvent, MessageAppended, SessionEvent, UnknownEvent
from manent.domain.messages import Role
from manent.domain.session import (
    SessionState,
    SessionStatus,
    decide_close,
    decide_delete,
    decide_request,
    decide_start,
    evolve,
)
from manent.domain.session_fold import fold
from manent.domain.session_limits import check_metadata, check_session_id
from manent.domain.short_events import in_short
from tests.support.conversation import (
    ANN,
    BOB,
    NOW_US,
    cancelled,
    deleted,
    failed,
    generated,
    given,
    requested,
    revised,
    said,
    started,
    system_replaced,
    user,
)


def start(state: SessionState) -> list[SessionEvent]:
    """Ann starts a session."""
    return decide_start(state, metadata={}, ttl_s=None, messages=[user("hi")], by=ANN, now_us=NOW_US)


def test_starting_records_the_session_and_its_first_messages() -> None:
    """A started session belongs to who started it and holds the messages it was given."""
    given().when(start).then(started(), said("user", "hi"))


@pytest.mark.parametrize("past", [[started()], [started(owner="bob")], [started(), deleted()]])
def test_an_id_is_never_used_twice(past: list[SessionEvent]) -> None:
    """Neither a second owner nor a deletion frees a session's id."""
    with pytest.raises(SessionAlreadyExists):
        given(*past).when(start)


def test_a_request_opens_a_completion_and_only_one() -> None:
    """A session holds one open completion at a time."""
    ask = lambda state: decide_request(state, requested("c2"), by=ANN)  # noqa: E731 (a scenario's step)
    given(started(), said("user", "hi")).when(ask).then(requested("c2"))
    with pytest.raises(SessionBusy, match="c1"):
        given(started(), requested("c1")).when(ask)


def test_success_records_the_answer_and_the_assistants_message() -> None:
    """CompletionGenerated is followed by the assistant's message, which names its completion."""
    decided = given(started(), said("user", "hi"), requested()).when(
        lambda state: decide_close(state, generated("hello"), now_us=NOW_US)
    )
    outcome, message = decided.events
    assert outcome == generated("hello")
    assert isinstance(message, MessageAppended)
    assert (message.completion_id, message.message.text, message.message.role) == ("c1", "hello", Role.ASSISTANT)


@pytest.mark.parametrize("ending", [generated(), failed(), cancelled()])
@pytest.mark.parametrize("first", [generated(), failed(), cancelled()])
def test_a_completion_has_one_terminal_event(first: CompletionOutcome, ending: CompletionOutcome) -> None:
    """Once a terminal event stands, no other is decided for the same completion."""
    given(started(), requested(), first).when(lambda state: decide_close(state, ending, now_us=NOW_US)).then()


@pytest.mark.parametrize("ending", [failed(), cancelled()])
def test_a_failed_completion_leaves_its_message_unanswered(ending: SessionEvent) -> None:
    """What a failed or cancelled completion produced is in its event, never in the conversation."""
    state = given(started(), said("user", "hi"), requested(), ending).state
    assert [message.text for message in state.messages] == ["hi"]
    assert [message.text for message in state.unanswered] == ["hi"]
    assert state.open_completion_id is None


def test_an_answer_to_a_deleted_session_is_recorded_but_not_appended() -> None:
    """The terminal event stands also where the session was closed meanwhile."""
    state = given(started(), requested(), deleted()).state
    assert decide_close(state, generated(), now_us=NOW_US) == [generated()]


@pytest.mark.parametrize(
    "decide",
    [
        lambda state, by: decide_request(state, requested("c2"), by=by),
        lambda state, by: decide_delete(state, by=by, now_us=NOW_US),
    ],
    ids=["request", "delete"],
)
@pytest.mark.parametrize(
    ("past", "by", "error"),
    [
        ([], ANN, SessionNotFound),
        ([started()], BOB, SessionNotFound),
        ([started(), deleted()], ANN, SessionClosed),
        ([started(), deleted()], BOB, SessionNotFound),
        ([started(), requested()], ANN, SessionBusy),
    ],
    ids=["absent", "somebody else's", "deleted", "deleted, somebody else's", "busy"],
)
def test_only_the_owner_goes_on_with_an_open_idle_session(
    decide: Callable[..., list[SessionEvent]], past: list[SessionEvent], by: object, error: type[DomainError]
) -> None:
    """To anyone else the session does not exist, and the owner is told what is wrong."""
    with pytest.raises(error):
        decide(given(*past).state, by)


def test_a_revision_drops_what_followed() -> None:
    """The state forgets the messages that a client rewrote."""
    state = given(
        started(), said("user", "a"), said("assistant", "b"), said("user", "c"), revised(1, "msg_assistant_b")
    ).state
    assert [message.text for message in state.messages] == ["a"]


def test_replacing_the_system_prompt_keeps_the_conversation() -> None:
    """Only the leading system messages change; where there were none, the new ones are put in front."""
    before = given(started(), said("system", "old"), said("user", "a"), system_replaced("new")).state
    assert [message.text for message in before.messages] == ["new", "a"]
    added = given(started(), said("user", "a"), system_replaced("new")).state
    assert [message.text for message in added.messages] == ["new", "a"]


EVENTS = st.sampled_from(
    [
        started(),
        said("user", "a"),
        said("assistant", "b"),
        said("system", "s"),
        said("tool", "t"),
        requested("c1"),
        requested("c2"),
        generated(),
        failed("c2"),
        cancelled(),
        revised(0, "x"),
        revised(7, "x"),
        system_replaced("n"),
        deleted(),
        UnknownEvent(type="FromTheFuture", schema_version=9, payload={"a": 1}),
        ErasedEvent(type="MessageAppended"),
    ]
)


@for_all(st.lists(EVENTS, max_size=30))
def test_every_history_folds(history: list[SessionEvent]) -> None:
    """Any sequence of recorded events has a state, the one that they make one by one, in full or in short."""
    nothing = SessionState(session_id="s", tenant="acme")
    state = fold(nothing, history, last_event_id="evt_1" if history else "")
    assert (state.version, state.last_event_id) == (len(history), "evt_1" if history else "")
    assert state == reduce(evolve, history, nothing) == fold(nothing, map(in_short, history))


@for_all(st.lists(EVENTS, max_size=20), st.lists(EVENTS, max_size=8), st.lists(EVENTS, max_size=8))
def test_states_never_change(past: list[SessionEvent], one: list[SessionEvent], other: list[SessionEvent]) -> None:
    """Two futures of one state do not see each other, though they share its storage."""
    state = fold(SessionState(session_id="s", tenant="acme"), past)
    before = list(state.messages)
    first = fold(state, one)
    texts = list(first.messages)
    fold(state, other)
    assert list(state.messages) == before
    assert list(first.messages) == texts
    assert list(fold(SessionState(session_id="s", tenant="acme"), [*past, *one]).messages) == texts


@for_all(st.lists(EVENTS, max_size=20))
def test_whatever_was_closed_stays_closed(past: list[SessionEvent]) -> None:
    """Closing what is open leaves nothing open, and closing again decides nothing."""
    state = fold(SessionState(session_id="s", tenant="acme"), past)
    if state.open_completion_id is None:
        return
    outcome = failed(state.open_completion_id)
    after = fold(state, decide_close(state, outcome, now_us=NOW_US))
    assert after.open_completion_id is None
    assert decide_close(after, outcome, now_us=NOW_US) == []


@pytest.mark.parametrize("session_id", ["a", "A-1", "user@example.com", "0.x_y~z:+=", "x" * 128])
def test_everyday_session_ids_are_accepted(session_id: str) -> None:
    """UUIDs, e-mail addresses, base64 and dotted names are session ids."""
    check_session_id(session_id)


@pytest.mark.parametrize(
    "session_id", ["", ".", "..", "-x", "a b", "a/b", "a\n", "é", "x" * 129, "a\x00", "%2e", "a?b"]
)
def test_strange_session_ids_are_refused_with_what_is_right(session_id: str) -> None:
    """An id that could not stand in an address or a log line is refused, and the message says what could."""
    with pytest.raises(InvalidValue, match="1 to 128 letters, digits"):
        check_session_id(session_id)


def test_metadata_has_openais_limits() -> None:
    """16 pairs, 64 characters a key, 512 a value, and not one more."""
    check_metadata({f"{i:064}": "v" * 512 for i in range(16)})
    for metadata in ({str(i): "" for i in range(17)}, {"k" * 65: ""}, {"k": "v" * 513}):
        with pytest.raises(InvalidValue):
            check_metadata(metadata)


@pytest.mark.parametrize("ttl_s", [0, -1, 10**12])
def test_a_ttl_is_positive_and_bounded(ttl_s: int) -> None:
    """A time to live that is nonsense is refused by name."""
    with pytest.raises(InvalidValue) as caught:
        decide_start(given().state, metadata={}, ttl_s=ttl_s, messages=[], by=ANN, now_us=NOW_US)
    assert caught.value.param == "ttl_s"


def test_a_deleted_session_is_told_apart() -> None:
    """The status says where a session is in its life."""
    assert given().state.status is SessionStatus.ABSENT
    assert given(started()).state.status is SessionStatus.OPEN
    assert evolve(given(started()).state, deleted()).status is SessionStatus.DELETED
