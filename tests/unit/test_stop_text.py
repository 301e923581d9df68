"""Stop strings: nothing of them is shown, nothing else is lost, and nothing is held back longer than it must be."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manent.adapters.inference.stop_text import StopMatcher

# Two letters, so that stop strings overlap with the text and with each other all the time.
texts = st.text(alphabet="ab", max_size=24)
stop_lists = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), min_size=0, max_size=4)


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """What is shown of a text that comes in one piece, by trying every end: the definition."""
    for end in range(len(text) + 1):
        completed = [stop for stop in stops if text[:end].endswith(stop)]
        if completed:
            return text[: end - max(map(len, completed))], True
    return text, False


def cut(text: str, places: set[int]) -> list[str]:
    """The text in pieces."""
    bounds = [0, *sorted(place for place in places if 0 < place < len(text)), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


def play(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """What is shown when the pieces come one by one."""
    matcher = StopMatcher(stops)
    shown = "".join(matcher.push(piece) for piece in pieces)
    return shown + matcher.finish(), matcher.stopped


@given(texts, stop_lists, st.sets(st.integers(0, 24)))
@example("abcb", ["abc", "b"], {1, 2})
def test_the_result_does_not_depend_on_how_the_text_was_cut(text: str, stops: list[str], places: set[int]) -> None:
    """However the text is cut, it ends before the stop string that is completed first."""
    assert play(cut(text, places), stops) == expected(text, stops)


@given(texts, stop_lists)
def test_exactly_what_may_become_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    """After each character, what is held back is the longest end of the text with which a stop string begins."""
    matcher = StopMatcher(stops)
    shown = ""
    for place, character in enumerate(text):
        shown += matcher.push(character)
        if matcher.stopped:
            break
        seen = text[: place + 1]
        begun = (n for n in range(len(seen), 0, -1) if any(s.startswith(seen[-n:]) and s != seen[-n:] for s in stops))
        assert shown == seen[: len(seen) - next(begun, 0)]


def test_a_stop_string_across_pieces_is_not_shown() -> None:
    """The classic: the stop string comes token by token."""
    matcher = StopMatcher(["\n\nUser:"])
    assert [matcher.push(piece) for piece in ("Hi", "\n", "\nUs", "er", ": more")] == ["Hi", "", "", "", ""]
    assert matcher.stopped
    assert matcher.finish() == ""


def test_text_that_only_looked_like_a_stop_string_comes_out_whole() -> None:
    """A false alarm delays text and loses none of it."""
    matcher = StopMatcher(["END."])
    assert [matcher.push(piece) for piece in ("the E", "N", "Dx", "E")] == ["the ", "", "ENDx", ""]
    assert matcher.finish() == "E"


def test_text_after_the_stop_is_dropped() -> None:
    """Whatever comes after a stop string, in its piece or later, is not shown."""
    matcher = StopMatcher(["stop"])
    assert matcher.push("go stop go") == "go "
    assert matcher.push("on") == ""


def test_an_empty_stop_string_is_refused() -> None:
    """It would end every text before its first character."""
    with pytest.raises(ValueError, match="empty"):
        StopMatcher(["x", ""])
