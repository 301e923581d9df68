"""Histories: immutable, sharing what they can, and quick to find a message in."""

from __future__ import annotations

from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.domain.history import History
from manent.domain.messages import Message
from tests.support.conversation import message


def numbered(*numbers: int) -> History:
    """A history of messages whose ids are their numbers."""
    return History(message("user", str(number), str(number)) for number in numbers)


def test_a_message_is_found_by_its_id() -> None:
    """In the view that is asked: not behind its end, and not in what another branch holds."""
    base = numbered(0, 1, 2)
    longer = base.extended(message("user", "3", "3"))
    assert [longer.index_of(str(number)) for number in range(5)] == [0, 1, 2, 3, None]
    assert base.index_of("3") is None
    branch = base.truncated(1).extended(message("user", "x", "x"))
    assert (branch.index_of("x"), branch.index_of("1"), longer.index_of("x")) == (1, None, None)
    assert longer.index_of("2") == 2


def test_of_equal_ids_the_first_is_found() -> None:
    """Nothing records an id twice; a file that was brought may, and still has one answer."""
    doubled = numbered(0, 7, 7, 1)
    assert (doubled.index_of("7"), doubled.index_of("1")) == (1, 3)
    assert doubled.truncated(2).index_of("7") == 1


@for_all(
    st.integers(0, 9), st.tuples(*[st.none() | st.integers(-12, 12)] * 2), st.none() | st.sampled_from([1, 2, -1, -3])
)
def test_a_slice_is_that_of_a_list(length: int, bounds: tuple[int | None, int | None], step: int | None) -> None:
    """Of the view's own messages, and of none behind its end."""
    history = numbered(*range(9)).truncated(length)
    assert history[bounds[0] : bounds[1] : step] == list(history)[bounds[0] : bounds[1] : step]


@for_all(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4), st.integers(0, 40)), max_size=30))
def test_look_ups_equal_a_search(steps: list[tuple[int, int, int]]) -> None:
    """Whatever is extended, cut off, extended again and asked in between, an id is where a search would find it."""
    histories = [numbered()]
    for number, (which, grown, asked) in enumerate(steps):
        base = histories[which % len(histories)]
        base = base.truncated(asked) if grown == 0 else base
        histories.append(base.extended(*(message("user", "x", f"{number}-{index}") for index in range(grown))))
        for history in histories:
            for wanted in (f"{asked}-0", f"{number}-{grown - 1}"):
                found = [index for index, one in enumerate(history) if one.message_id == wanted]
                assert history.index_of(wanted) == (found[0] if found else None)


def test_a_deferred_history_is_made_once_when_it_is_looked_at() -> None:
    """Its length needs nothing, nor does a shorter view of it; views share what was made, and it is like any other."""
    built = []

    def build() -> list[Message]:
        built.append(1)
        return list(numbered(0, 1, 2))

    history = History.deferred(3, build, size_bytes=99)
    shorter = history.truncated(2)
    assert (len(history), len(shorter), history.unbuilt_bytes, built) == (3, 2, 99, [])
    assert shorter.extended(message("user", "x", "x")).index_of("x") == 2
    assert (history, shorter) == (numbered(0, 1, 2), numbered(0, 1))
    assert (built, shorter.unbuilt_bytes, history.index_of("2")) == ([1], 0, 2)
