"""Conditional requests on sessions (RFC 9110, 13): a session's entity tag is the version of its stream."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sanic import HTTPResponse

from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.domain.session_upkeep import ExpectedVersion

IF_MATCH, IF_NONE_MATCH = "If-Match", "If-None-Match"
ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"')
SEPARATORS = re.compile(r"[ \t]*(?:,[ \t]*)*")
VERSION = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
ANY = "*"


def etag_headers(version: int) -> dict[str, str]:
    """The header that names the version that an answer was made from."""
    return {"etag": f'"{version}"'}


def expected_version(exchange: Exchange) -> ExpectedVersion | None:
    """What ``If-Match`` asks for; None where it is not sent. Weak tags are read and never match, as RFC 9110 has it.

    Raises:
        RequestRefused: it is no list of entity tags and no ``*``.
    """
    given = _given(exchange, IF_MATCH)
    if given is None:
        return None
    if given == ANY:
        return ExpectedVersion()
    strong = [tag for weak, tag in _entity_tags(IF_MATCH, given) if not weak]
    return ExpectedVersion.of(*(int(tag) for tag in strong if VERSION.fullmatch(tag)))


def not_modified(exchange: Exchange, version: int) -> HTTPResponse | None:
    """The answer 304 where ``If-None-Match`` names ``version``, or anything with ``*``.

    Raises:
        RequestRefused: as ``expected_version``.
    """
    given = _given(exchange, IF_NONE_MATCH)
    if given is None:
        return None
    known = given == ANY or str(version) in [tag for _, tag in _entity_tags(IF_NONE_MATCH, given)]
    return HTTPResponse(status=304, headers=etag_headers(version)) if known else None


def _given(exchange: Exchange, name: str) -> str | None:
    """The value of a header; several lines are one list."""
    lines = exchange.request.headers.getall(name, [])
    return ", ".join(lines).strip(" \t") if lines else None


def _entity_tags(name: str, text: str) -> Iterator[tuple[bool, str]]:
    """Whether each tag is weak, and what stands between its quotes."""
    found = False
    place = SEPARATORS.match(text).end()  # type: ignore[union-attr]  # it matches nothing at all, too
    while place < len(text):
        tag = ENTITY_TAG.match(text, place)
        if tag is None:
            break
        found = True
        yield tag[1] is not None, tag[2]
        end = SEPARATORS.match(text, tag.end()).end()  # type: ignore[union-attr]  # it matches nothing at all, too
        if end < len(text) and "," not in text[tag.end() : end]:
            break
        place = end
    if not found or place < len(text):
        raise RequestRefused(
            "invalid_value",
            f'{name} is {text[:80]!r}; it must be entity tags such as "3", quotes and all, with commas between them, '
            "or * alone",
            param=name,
        )
