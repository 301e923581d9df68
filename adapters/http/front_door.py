"""What every request passes before its handler, and every answer behind it: names, origins, credentials, limits."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

from sanic import HTTPResponse, Request

from manent.adapters.http.anthropic_errors import speaks_anthropic
from manent.adapters.http.context import HttpLimits, HttpServices
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.hosts import check_host
from manent.adapters.http.principal import NOBODY
from manent.adapters.http.rate_headers import anthropic_rate_headers, rate_headers
from manent.adapters.http.request import HttpRequest
from manent.adapters.http.safe_headers import ALWAYS, UNCACHED, https_headers
from manent.domain.access import Principal
from manent.domain.errors import DomainError
from manent.domain.limits import RateLimited

READING = frozenset({"GET", "HEAD", "OPTIONS"})
REQUESTED_METHOD = "access-control-request-method"


async def admit(request: HttpRequest, services: HttpServices, limits: HttpLimits, *, public: bool) -> Principal:
    """Who asks, once it is known that they may ask here and now. Whoever is not recognized is counted by address.

    Raises:
        RequestRefused: another server's name, or a web page that may not use this one.
        RateLimited: too many requests.
        DomainError: the credential is not accepted.
    """
    if limits.hosts is not None:
        check_host(request.origin.host, limits.hosts)
    _check_origin(request, limits)
    if public:
        return NOBODY
    try:
        try:
            principal = await services.authenticate(request)
        except DomainError:
            await services.counting.request(None, request.origin.address)
            raise
        request.levels = await services.counting.request(principal, request.origin.address)
    except RateLimited as refused:
        request.levels = refused.levels
        raise
    return principal


def preflight(limits: HttpLimits) -> Callable[[Request], HTTPResponse | None]:
    """Middleware that answers a browser which asks whether it may send a request of another origin."""

    def answer(request: Request) -> HTTPResponse | None:
        origin = request.headers.get("origin")
        if request.method != "OPTIONS" or origin is None or REQUESTED_METHOD not in request.headers:
            return None
        if not isinstance(request, HttpRequest):
            return None
        if limits.hosts is not None:
            check_host(request.origin.host, limits.hosts)
        if not limits.origins.allows(origin):
            raise _not_allowed(origin)
        return HTTPResponse(status=204, headers=dict(limits.origins.preflight()))

    return answer


def front_headers(request: HttpRequest, headers: MutableMapping[str, Any], limits: HttpLimits) -> None:
    """Add what every answer says to browsers, and where the limits stand."""
    for name, value in ALWAYS.items():
        headers.setdefault(name, value)
    headers.setdefault("cache-control", UNCACHED)
    origin = request.headers.get("origin")
    if limits.origins:
        headers.update(limits.origins.headers(origin))
    headers.update(https_headers(request.origin))
    if levels := request.told_levels:
        headers.update(rate_headers(levels))
    if speaks_anthropic(request):
        headers["request-id"] = request.request_id
        headers.update(anthropic_rate_headers(request.told_levels, datetime.now(UTC)))


def _check_origin(request: HttpRequest, limits: HttpLimits) -> None:
    """Refuse what a web page of another origin would change; what it would read, its browser keeps from it.

    A page may send some requests without asking first, and does not need the answer for the harm. A WebSocket it may
    open and read: of that, no browser keeps anything from it.
    """
    origin = request.headers.get("origin")
    if origin is None or (request.method in READING and not request.is_upgrade):
        return
    own = request.origin
    if origin.lower() != f"{own.scheme}://{own.host}".lower() and not limits.origins.allows(origin):
        raise _not_allowed(origin)


def _not_allowed(origin: str) -> RequestRefused:
    return RequestRefused(
        "origin_not_allowed",
        f"pages of {origin[:200]!r} may not use this server; MANENT_CORS_ORIGINS names those that may",
    )
