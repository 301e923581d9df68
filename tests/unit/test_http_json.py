"""What the HTTP adapter takes for JSON: pure, without a server."""

from __future__ import annotations

import json
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.json_body import check_content_type, parse_json

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_a_repetition_among_many_keys_is_found_at_once() -> None:
    """The time that it takes grows with the keys and not with their square, so that no body holds the server up."""
    keys = [f'"{number}": 0' for number in range(40_000)]
    began_s = process_time()
    with pytest.raises(RequestRefused, match="the key '20000' appears twice"):
        parse_json(f"{{{', '.join([*keys, keys[20_000], keys[-1]])}}}".encode())
    assert process_time() - began_s < 1


@given(JSON_VALUES)
def test_what_json_writes_is_read_back(value: object) -> None:
    """Strictness costs no valid document, escaped or not."""
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "the body is empty"),
        (b'{"a": 1,}', "line 1 column 9"),
        (b'{"a": 1}\n}', "line 2 column 1"),
        (b'{"a": 1, "b": {"a": 1}, "a": 2}', "the key 'a' appears twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"\\udfff": 1}', "half of a surrogate pair"),
        (b'{"a": "\xff"}', "byte 7 cannot be decoded"),
        (b"[" * 20_000, "nested too deeply"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"'a'", "line 1 column 1"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_ambiguous_or_malformed_json_is_refused_with_its_place(body: bytes, place: str) -> None:
    """Every document that two parsers may read differently is a 400 that says where it went wrong."""
    with pytest.raises(RequestRefused) as refused:
        parse_json(body)
    assert refused.value.code == "invalid_json"
    assert place in refused.value.message


@given(st.binary(max_size=60))
def test_no_bytes_end_in_anything_but_a_refusal(body: bytes) -> None:
    """Arbitrary bytes are JSON or refused; nothing else is ever raised."""
    with suppress(RequestRefused):
        parse_json(body)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/x+json"],
)
def test_json_content_types_are_taken(content_type: str) -> None:
    """The media type counts, whatever its letters' case and its parameters' form."""
    check_content_type(content_type, None)


@pytest.mark.parametrize(
    ("content_type", "content_encoding"),
    [
        (None, None),
        ("text/plain", None),
        ("application/x-www-form-urlencoded", None),
        ("application/json; charset=utf-16", None),
        ("text/plain; application/json", None),
        ("application/json", "gzip"),
    ],
)
def test_what_a_browser_may_post_unasked_is_refused(content_type: str | None, content_encoding: str | None) -> None:
    """A body not declared as plain UTF-8 JSON is a 415: a web page must not reach a local server with text/plain."""
    with pytest.raises(RequestRefused) as refused:
        check_content_type(content_type, content_encoding)
    assert refused.value.code == "unsupported_media_type"
