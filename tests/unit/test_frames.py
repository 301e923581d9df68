"""Frames: any growth of a state is read as it was, and no damage passes for a state."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from manent.adapters.projections.frames import TRAILER, growth, is_too_large, read_state, version_of
from manent.adapters.projections.lru import MESSAGE_OVERHEAD_BYTES, LruContextCache
from manent.domain.history import History
from manent.domain.projections import ContextUnreadable
from manent.domain.replay_events import Fork
from manent.domain.session import SessionState
from tests.support.conversation import message

MESSAGES = st.builds(message, st.sampled_from(["user", "assistant"]), st.text(max_size=9), st.sampled_from("abc"))
SPECIAL = {
    "tenant": st.just("s"),
    "session_id": st.just("s"),
    "version": st.integers(1, 9),
    "metadata": st.dictionaries(st.text("ab", max_size=2), st.text("cd", max_size=2), max_size=2),
    "ttl_s": st.none() | st.integers(1, 10**9),
    "parent": st.none() | st.builds(Fork, session_id=st.text(max_size=3), version=st.integers(1, 9)),
    "messages": st.builds(History, st.lists(MESSAGES, max_size=3)),
    "started_at_us": st.integers(0, 2**62),
    "changed_at_us": st.integers(0, 2**62),
}
STATES = st.builds(SessionState, **{member.name: SPECIAL.get(member.name, ...) for member in fields(SessionState)})


def written(*states: SessionState) -> bytes:
    """What the script makes of one state after another."""
    value, before = b"", None
    for number, state in enumerate(states, 1):
        grown = growth(state, before)
        value += grown.body + TRAILER.pack(grown.checksum, len(grown.body), grown.version, number)
        before = state
    return value


@settings(max_examples=50)
@for_all(st.lists(STATES, min_size=1, max_size=5))
def test_every_growth_is_read_as_it_was(states: list[SessionState]) -> None:
    """Whatever member changes, and however the messages do; also the last event's id, which equality leaves out."""
    states = [replace(state, version=number) for number, state in enumerate(states, 1)]
    found = read_state(written(*states), "s", "s")
    assert (found, found.last_event_id) == (states[-1], states[-1].last_event_id)
    assert version_of(written(*states)[-TRAILER.size :]) == len(states)


@settings(max_examples=50)
@for_all(STATES, STATES, st.data())
def test_no_damage_is_believed(one: SessionState, two: SessionState, data: st.DataObject) -> None:
    """One byte changed, bytes cut from either end, a frame left out: it is refused, and nothing else is raised."""
    value = written(replace(one, version=1), replace(two, version=2))
    first = len(written(replace(one, version=1)))
    place = data.draw(st.integers(0, len(value) - 1))
    cut = data.draw(st.integers(1, len(value)))
    flipped = bytes([*value[:place], value[place] ^ data.draw(st.integers(1, 255)), *value[place + 1 :]])
    for damaged in (flipped, value[cut:], value[first:], value + value, value + value[first:]):
        with pytest.raises(ContextUnreadable):
            read_state(damaged, "s", "s")
    with pytest.raises(ContextUnreadable):
        read_state(value, "s", "another")


@for_all(st.binary(max_size=100))
def test_garbage_is_no_state(value: bytes) -> None:
    """Whatever the bytes."""
    with pytest.raises(ContextUnreadable):
        read_state(value, "s", "s")


def test_a_trailer_alone_says_too_large() -> None:
    """It has no frames, and no version that anybody could go on from."""
    value = TRAILER.pack(0, 0, 7, 0)
    assert is_too_large(value)
    assert version_of(value) is None
    assert not is_too_large(written(SessionState(session_id="s", tenant="s", version=1)))


async def test_messages_are_made_when_one_is_looked_at() -> None:
    """Neither reading a context nor keeping it near does, and its size near counts them all the same."""
    said = History([message("user", "words", "a"), message("assistant", "more words", "b")])
    state = SessionState(session_id="s", tenant="s", version=1, messages=said)
    read, near = read_state(written(state), "s", "s"), LruContextCache(budget_bytes=10**6)
    await near.put(read)
    assert read.messages.unbuilt_bytes > 0
    assert near.size_bytes > 2 * MESSAGE_OVERHEAD_BYTES
    assert read == state
    assert read.messages.unbuilt_bytes == 0
