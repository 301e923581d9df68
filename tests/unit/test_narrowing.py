"""What DuckDB's filters say of where events lie: used where it is certain, and otherwise left to the filter itself."""

from __future__ import annotations

import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manent.adapters.analysis.arrow import TIME
from manent.adapters.analysis.narrowing import narrowed
from manent.domain.records import EventFilter

TYPE, TENANT, POSITION = ds.field("type"), ds.field("tenant"), ds.field("position")
WORDS = st.sampled_from(["a", "b", 'q"q', "b\\s", "(position > 5)", 'x" and (type == "b', " and ", "ä", ""])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ((TYPE == "a") & (TENANT == "t") & (POSITION > 5) & (POSITION <= 9), ("t", "a", 6, 9)),
        (POSITION == 7, (None, None, 7, 7)),
        ((POSITION >= 3) & (POSITION >= 5) & (POSITION < 9) & (POSITION < 8), (None, None, 5, 7)),
        ((TYPE == "a") | (TENANT == "t"), (None, None, None, None)),
        ((TYPE == "a") & ((TENANT == "t") | (POSITION > 5)), (None, None, None, None)),
        (~(TYPE == "a"), (None, None, None, None)),
        (TYPE != "a", (None, None, None, None)),
        (TYPE.isin(["a", "b"]), (None, None, None, None)),
        ((TYPE == 'a" and (tenant == "t') & (POSITION > 5), (None, None, None, None)),
    ],
)
def test_only_what_has_to_hold_narrows(
    expression: ds.Expression, expected: tuple[str | None, str | None, int | None, int | None]
) -> None:
    """A conjunction of comparisons is understood; anything else is left alone as a whole."""
    found = narrowed(EventFilter(), str(expression))
    assert (found.tenant, found.type, found.min_position, found.max_position) == expected


def test_times_narrow_to_the_microsecond() -> None:
    """The ends of a range of times are inclusive in a filter of the log."""
    import pyarrow as pa  # noqa: PLC0415 (for this test's literals)

    at = ds.field("recorded_at")
    expression = (at >= pa.scalar(1_700_000_000_000_001, TIME)) & (at < pa.scalar(1_700_000_000_000_009, TIME))
    found = narrowed(EventFilter(), str(expression))
    assert (found.since_us, found.until_us) == (1_700_000_000_000_001, 1_700_000_000_000_008)


def test_what_was_given_is_never_widened() -> None:
    """The bound that fixes the log's state stays, and so does a type that was asked for."""
    given_filter = EventFilter(type="b", min_position=4, max_position=6)
    found = narrowed(given_filter, str((TYPE == "a") & (POSITION > 1) & (POSITION < 100)))
    assert found == given_filter


@given(st.lists(st.tuples(st.sampled_from(["type", "tenant", "position"]), WORDS, st.integers(0, 9)), min_size=1))
def test_no_event_that_matches_is_narrowed_away(terms: list[tuple[str, str, int]]) -> None:
    """Whatever texts stand in a filter, an event that satisfies it satisfies the narrowed one too."""
    expression = None
    for column, word, number in terms:
        term = number <= POSITION if column == "position" else ds.field(column) == word
        expression = term if expression is None else expression & term
    found = narrowed(EventFilter(), str(expression))
    texts = {column: {word for name, word, _ in terms if name == column} for column in ("type", "tenant")}
    for column, words in texts.items():
        if len(words) == 1:  # with two values nothing matches
            assert getattr(found, column) in {None, *words}
    least = max((number for column, _, number in terms if column == "position"), default=0)
    assert (found.min_position or 0) <= least
    assert found.max_position is None
