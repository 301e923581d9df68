"""A session beside its conversation: its time to live, changes, added messages, and the version that was meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.domain.access import Principal, Scope
from manent.domain.errors import (
    DomainError,
    InvalidValue,
    PreconditionFailed,
    SessionBusy,
    SessionClosed,
    SessionGone,
    SessionNotFound,
)
from manent.domain.event_times import happened_at_us
from manent.domain.events import (
    DomainEvent,
    ErasedEvent,
    SessionEvent,
    SessionExpired,
    SessionMetadataChanged,
    UnknownEvent,
)
from manent.domain.session import SessionState, SessionStatus, check_usable, decide_delete, decide_request
from manent.domain.session_upkeep import (
    ExpectedVersion,
    SessionChange,
    check_readable,
    decide_append,
    decide_change,
    decide_expire,
)
from tests.support.conversation import (
    ANN,
    BOB,
    NOW_US,
    deleted,
    failed,
    generated,
    given,
    requested,
    revised,
    said,
    started,
    user,
)

SECOND_US = 1_000_000
DUE_US = NOW_US + 60 * SECOND_US


def mortal(**changes: Any) -> SessionMetadataChanged:
    """From now on the session lives for 60 s."""
    members: dict[str, Any] = {"metadata": {}, "ttl_s": 60, "changed_at_us": NOW_US, **changes}
    return SessionMetadataChanged(session_id="s", changed_by="ann", **members)


def expired() -> SessionExpired:
    """The session expired after its 60 s."""
    return SessionExpired(session_id="s", ttl_s=60, last_used_at_us=NOW_US, expired_at_us=DUE_US)


def add(state: SessionState, *, now_us: int = NOW_US, by: Principal = ANN) -> list[SessionEvent]:
    """Ann adds a message."""
    return decide_append(state, [user("more")], expected=None, by=by, now_us=now_us)


def test_a_session_without_a_time_to_live_never_expires() -> None:
    """No ttl_s, no end."""
    assert given(started(), said("user", "hi")).state.expires_at_us is None


def test_the_time_to_live_begins_again_with_every_event() -> None:
    """Each event of the stream counts as use, an answer and a change of metadata too."""
    later_us = NOW_US + 50 * SECOND_US
    for event in (said("user", "hi"), requested(), generated(), failed(), revised(0, "m"), mortal(metadata={"k": "v"})):
        at_later: dict[str, Any] = {fields(event)[-1].name: later_us}
        used = replace(event, **at_later)
        state = replace(given(started(), mortal(), used).state, open_completion_id=None)
        assert state.expires_at_us == later_us + 60 * SECOND_US, event


def test_an_earlier_clock_does_not_shorten_a_life() -> None:
    """A node whose clock is behind adds an event: the session was used later than that already."""
    state = given(started(), mortal(), mortal(changed_at_us=NOW_US - 10 * SECOND_US)).state
    assert (state.changed_at_us, state.expires_at_us) == (NOW_US, DUE_US)


def test_an_open_completion_keeps_a_session_alive() -> None:
    """However long the model takes, its answer finds the session open."""
    scenario = given(started(), mortal(), requested())
    assert scenario.state.expires_at_us is None
    scenario.when(lambda state: decide_expire(state, now_us=DUE_US * 2)).then()
    check_usable(scenario.state, ANN, now_us=DUE_US * 2)


@pytest.mark.parametrize("past", [[started(), mortal()], [started(), mortal(), expired()]], ids=["due", "expired"])
@pytest.mark.parametrize(
    "use",
    [
        lambda state, now_us: decide_append(state, [user("x")], expected=None, by=ANN, now_us=now_us),
        lambda state, now_us: decide_change(state, SessionChange(metadata={}), expected=None, by=ANN, now_us=now_us),
        lambda state, now_us: decide_delete(state, by=ANN, now_us=now_us),
        lambda state, now_us: check_readable(state, ANN, now_us=now_us),
        lambda state, now_us: check_usable(state, ANN, now_us=now_us),
    ],
    ids=["add", "change", "delete", "read", "chat"],
)
def test_an_expired_session_says_when(past: list[DomainEvent], use: Callable[[SessionState, int], object]) -> None:
    """From the very microsecond that it is due, and the same whether or not the sweeper came."""
    state = given(*past).state
    with pytest.raises(SessionGone, match="expired at 2023-11-14T22:14:20Z, 60 s after its last event"):
        use(state, DUE_US)
    if state.status is SessionStatus.OPEN:
        use(state, DUE_US - 1)


def test_a_request_at_the_last_moment_is_in_time() -> None:
    """What counts is when the request was decided."""
    state = given(started(), mortal()).state
    in_time = replace(requested(), requested_at_us=DUE_US - 1)
    assert decide_request(state, in_time, by=ANN) == [in_time]
    with pytest.raises(SessionGone):
        decide_request(state, replace(requested(), requested_at_us=DUE_US), by=ANN)


def test_expiry_is_recorded_once_and_when_it_was_due() -> None:
    """The sweeper may come late: the event says when the session ended, not when that was noticed."""
    expire = lambda state: decide_expire(state, now_us=DUE_US + 5 * SECOND_US)  # noqa: E731 (a scenario's step)
    given(started(), mortal()).when(expire).then(expired())
    given(started(), mortal(), expired()).when(expire).then()
    given(started(), mortal(), deleted()).when(expire).then()
    given(started(), mortal(), mortal(ttl_s=None)).when(expire).then()
    given(started(), mortal()).when(lambda state: decide_expire(state, now_us=DUE_US - 1)).then()


def test_a_change_replaces_what_it_names() -> None:
    """Metadata as a whole; the time to live, also with for ever; what is not named stays."""

    def change(**wished: Any) -> Callable[[SessionState], list[SessionEvent]]:
        return lambda state: decide_change(state, SessionChange(**wished), expected=None, by=ANN, now_us=NOW_US)

    session = given(started(), mortal(metadata={"a": "1"}))
    session.when(change(metadata={"b": "2"})).then(mortal(metadata={"b": "2"}))
    session.when(change(ttl_s=5, changes_ttl=True)).then(mortal(metadata={"a": "1"}, ttl_s=5))
    session.when(change(changes_ttl=True)).then(mortal(metadata={"a": "1"}, ttl_s=None))
    session.when(change(metadata={"a": "1"})).then(mortal(metadata={"a": "1"}))
    session.when(change()).then()


@pytest.mark.parametrize(
    "change",
    [
        SessionChange(metadata={"k": "v" * 513}),
        SessionChange(metadata={"k\0": "v"}),
        SessionChange(metadata={str(number): "" for number in range(17)}),
        SessionChange(ttl_s=0, changes_ttl=True),
        SessionChange(ttl_s=10**12, changes_ttl=True),
    ],
)
def test_a_change_keeps_to_the_limits(change: SessionChange) -> None:
    """What a new session may not be, none becomes."""
    with pytest.raises(InvalidValue):
        decide_change(given(started()).state, change, expected=None, by=ANN, now_us=NOW_US)


def test_messages_are_added_behind_the_answer() -> None:
    """While an answer is being generated the conversation is not continued."""
    given(started()).when(add).then(said("user", "more"))
    with pytest.raises(SessionBusy, match="c1"):
        given(started(), requested()).when(add)


@pytest.mark.parametrize(
    ("past", "by", "error"),
    [
        ([], ANN, SessionNotFound),
        ([started()], BOB, SessionNotFound),
        ([started()], Principal(tenant="acme", subject="eve", scopes=frozenset({Scope.AUDIT})), SessionNotFound),
        ([started(), deleted()], ANN, SessionClosed),
    ],
)
def test_only_the_owner_adds_and_changes(past: list[DomainEvent], by: Principal, error: type[DomainError]) -> None:
    """To others, auditors too, a session that they may not use is not there."""
    with pytest.raises(error):
        add(given(*past).state, by=by)
    with pytest.raises(error):
        decide_change(given(*past).state, SessionChange(metadata={}), expected=None, by=by, now_us=NOW_US)


def test_an_auditor_reads_what_is_open() -> None:
    """To read needs less than to use; what was deleted is only in the log."""
    auditor = Principal(tenant="acme", subject="eve", scopes=frozenset({Scope.AUDIT}))
    check_readable(given(started()).state, auditor, now_us=NOW_US)
    for state in (given(started(), deleted()).state, given().state):
        with pytest.raises(SessionNotFound):
            check_readable(state, auditor, now_us=NOW_US)


def test_the_expected_version_is_compared() -> None:
    """One of the named versions, or any of a session that exists."""
    state = given(started(), said("user", "hi")).state
    ExpectedVersion().check(state)
    ExpectedVersion.of(7, 2).check(state)
    with pytest.raises(PreconditionFailed, match="is at version 2, not 1 or 3"):
        ExpectedVersion.of(3, 1).check(state)
    with pytest.raises(PreconditionFailed, match="not no version"):
        ExpectedVersion.of().check(state)
    for expected in (ExpectedVersion(), ExpectedVersion.of(1)):
        with pytest.raises(PreconditionFailed, match="does not exist"):
            expected.check(given().state)


def test_a_failed_precondition_decides_nothing() -> None:
    """Neither a message nor a change gets in; and who may not use the session learns no version."""
    state, stale = given(started()).state, ExpectedVersion.of(9)
    with pytest.raises(PreconditionFailed):
        decide_append(state, [user("x")], expected=stale, by=ANN, now_us=NOW_US)
    with pytest.raises(PreconditionFailed):
        decide_change(state, SessionChange(), expected=stale, by=ANN, now_us=NOW_US)
    with pytest.raises(SessionNotFound):
        decide_change(state, SessionChange(), expected=stale, by=BOB, now_us=NOW_US)


def test_every_event_ends_with_its_time() -> None:
    """The rule by which a state knows when it was used last; only what the log cannot read has no time."""
    kinds = [kind for kind in get_args(DomainEvent) if kind not in {UnknownEvent, ErasedEvent}]
    assert len(kinds) > 15
    for kind in kinds:
        assert fields(kind)[-1].name.endswith("_at_us"), kind
    assert happened_at_us(expired()) == DUE_US
    assert happened_at_us(ErasedEvent(type="MessageAppended")) is None


@for_all(st.lists(st.sampled_from([said("user", "x"), requested(), generated(), mortal(), deleted()]), max_size=12))
def test_what_may_be_expired_may_not_be_used(events: list[SessionEvent]) -> None:
    """The sweeper and the requests agree at every moment: a session is either usable or due, never both."""
    state = given(started(), *events).state
    for now_us in (NOW_US, DUE_US - 1, DUE_US, DUE_US + 1):
        due = bool(decide_expire(state, now_us=now_us))
        try:
            check_usable(state, ANN, now_us=now_us)
        except SessionGone:
            assert due
        except SessionClosed:
            assert not due
        else:
            assert not due
