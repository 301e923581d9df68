"""Query parameters: strict, bounded, and never ignored."""

from __future__ import annotations

import pytest

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.query import IntQuery, TextQuery, read_query

KNOWN = (
    IntQuery(name="limit", says="", minimum=1, maximum=100, default=20),
    TextQuery(name="order", says="", choices=("asc", "desc"), default="asc"),
    TextQuery(name="after", says="", chars_max=5),
)


def test_defaults_fill_in() -> None:
    """What is not given has its default, or None."""
    assert read_query("", KNOWN) == {"limit": 20, "order": "asc", "after": None}
    assert read_query("limit=3&order=desc&after=a%2Fb", KNOWN) == {"limit": 3, "order": "desc", "after": "a/b"}


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("limit=0", "invalid_value", "limit"),
        ("limit=101", "invalid_value", "limit"),
        ("limit=-5", "invalid_value", "limit"),
        ("limit=ten", "invalid_type", "limit"),
        ("limit=1.0", "invalid_type", "limit"),
        ("limit=", "invalid_type", "limit"),
        ("limit=%D9%A1", "invalid_type", "limit"),
        ("limit=" + "9" * 400, "invalid_type", "limit"),
        ("limit=1&limit=2", "invalid_value", "limit"),
        ("order=up", "invalid_value", "order"),
        ("after=", "invalid_value", "after"),
        ("after=123456", "invalid_value", "after"),
        ("after=%00", "invalid_value", "after"),
        ("limits=3", "unknown_parameter", "limits"),
        ("after=%ff", "invalid_value", None),
        ("&".join("limit=1" for _ in range(40)), "invalid_value", None),
    ],
)
def test_a_wrong_query_is_refused_by_name(query: str, code: str, param: str | None) -> None:
    """Nothing of a query is ignored or guessed."""
    with pytest.raises(RequestRefused) as refused:
        read_query(query, KNOWN)
    assert (refused.value.code, refused.value.param) == (code, param)
