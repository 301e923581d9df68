"""Times of a query: RFC 3339 with an offset or integer microseconds, and nothing that has to be guessed."""

from __future__ import annotations

import pytest

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.query import TimeQuery, read_query
from manent.adapters.http.times import microseconds


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("0", 0),
        ("1700000000000000", 1_700_000_000_000_000),
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01t00:00:01z", 1_000_000),
        ("1970-01-01T01:00:00.000001+01:00", 1),
        ("1970-01-01T00:00:00.5-00:00", 500_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000),
        ("1950-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ],
)
def test_times_are_read_exactly(text: str, expected_us: int) -> None:
    """To the microsecond; what lies before 1970 is before every event."""
    assert microseconds(text) == expected_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "-1",
        "1.5",
        "2026-11-24",
        "2026-11-24T09:30:00",
        "2026-11-24 09:30:00Z",
        "2026-13-24T09:30:00Z",
        "2026-11-24T09:30:60Z",
        "2026-11-24T09:30:00.1234567Z",
        "٢٠٢٦-11-24T09:30:00Z",
        "9" * 19,
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """Without an offset a time is another one on each machine; decimals below a microsecond cannot be meant."""
    with pytest.raises(ValueError, match="time"):
        microseconds(text)


def test_a_plus_that_was_not_encoded_is_explained() -> None:
    """In a query a bare + is a space: the refusal says what to write."""
    known = (TimeQuery(name="since", says=""),)
    assert read_query("since=1970-01-01T01:00:00%2B01:00", known) == {"since": 0}
    with pytest.raises(RequestRefused, match="%2B") as refused:
        read_query("since=1970-01-01T01:00:00+01:00", known)
    assert (refused.value.code, refused.value.param) == ("invalid_value", "since")
