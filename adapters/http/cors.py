"""Which web pages may use the server from their scripts (the CORS protocol of the Fetch standard).

Only what a setting names: exact origins, and patterns in which ``*`` is one label of a name. An origin is compared as a
whole, so neither a suffix nor a prefix of one passes; ``null``, which any page can have, is never one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

ANY = "*"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:]+\]|[a-z0-9_*.-]+)(?::\d{1,5})?", re.IGNORECASE)
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
METHODS = "GET, POST, PATCH, PUT, DELETE, HEAD, OPTIONS"
EXPOSED = (
    "x-request-id, x-session-id, etag, retry-after, retry-after-ms, x-should-retry, openai-processing-ms, "
    "x-queue-position, x-queue-wait-ms, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
    "request-id, anthropic-ratelimit-requests-limit, anthropic-ratelimit-requests-remaining, "
    "anthropic-ratelimit-requests-reset, anthropic-ratelimit-tokens-limit, anthropic-ratelimit-tokens-remaining, "
    "anthropic-ratelimit-tokens-reset"
)
# What clients of this API send. A preflight is told these, and not what it asks for.
ALLOWED = (
    "anthropic-beta, anthropic-dangerous-direct-browser-access, anthropic-version, "
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, openai-beta, "
    "openai-organization, openai-project, x-access-purpose, x-api-key, x-correlation-id, x-request-id, x-session-id, "
    "x-stainless-arch, x-stainless-helper, x-stainless-helper-method, x-stainless-lang, x-stainless-os, "
    "x-stainless-package-version, x-stainless-read-timeout, "
    "x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout"
)
PREFLIGHT_S = 600


class Origins:
    """The origins that are allowed."""

    def __init__(self, patterns: Iterable[str] = (), *, credentials: bool = False) -> None:
        """Allow ``patterns``; ``credentials`` lets browsers send cookies and client certificates along.

        Raises:
            ValueError: one is no origin, or ``*`` is to have credentials.
        """
        given = [_checked(pattern) for pattern in patterns]
        if ANY in given and credentials:
            raise ValueError("'*' and credentials do not go together: name the origins that may send them")
        self._any = ANY in given
        self._exact = frozenset(one for one in given if ANY not in one)
        self._patterns = [_expression(one) for one in given if ANY in one and one != ANY]
        self._credentials = credentials

    def __bool__(self) -> bool:
        return self._any or bool(self._exact) or bool(self._patterns)

    def allows(self, origin: str) -> bool:
        """Whether pages of ``origin`` may use the server."""
        if origin == "null" or not ORIGIN.fullmatch(origin) or ANY in origin:
            return False
        one = _normal(origin)
        return self._any or one in self._exact or any(pattern.fullmatch(one) for pattern in self._patterns)

    def headers(self, origin: str | None) -> Mapping[str, str]:
        """What is said on every answer to a request from ``origin``."""
        if not self:
            return {}
        varies = {"vary": "origin"}
        if origin is None or not self.allows(origin):
            return varies
        credentials = {"access-control-allow-credentials": "true"} if self._credentials else {}
        return {
            **varies,
            **credentials,
            "access-control-allow-origin": origin,
            "access-control-expose-headers": EXPOSED,
        }

    def preflight(self) -> Mapping[str, str]:
        """What is said besides to a browser that asks before it sends a request."""
        return {
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": ALLOWED,
            "access-control-max-age": str(PREFLIGHT_S),
        }


NO_ORIGINS = Origins()


def _normal(origin: str) -> str:
    """As browsers write it: lower case, and without the scheme's own port."""
    origin = origin.lower()
    return origin.removesuffix(DEFAULT_PORTS.get(origin.partition(":")[0], "\0"))


def _checked(pattern: str) -> str:
    if pattern == ANY or ORIGIN.fullmatch(pattern):
        return _normal(pattern)
    raise ValueError(
        f"{pattern!r} is no origin; write https://app.example.com (scheme and host, no path, no slash at the end), "
        "https://*.example.com, or *"
    )


def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile("[a-z0-9_-]+".join(re.escape(part) for part in pattern.split(ANY)))
