"""Who asks: what a request presents, and the visit as which it is remembered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import cast

from sanic import Request

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.request import HttpRequest
from manent.domain.access import Principal, Scope
from manent.domain.access_errors import InvalidCredential
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.usecases.identify import Identify
from manent.domain.usecases.record_reads import RecordedVisit

Authenticate = Callable[[Request], Awaitable[Principal]]

NOBODY = Principal(tenant="", subject="", scopes=frozenset({Scope.MODELS_READ}))
"""Who asks where nobody is asked for: health, documentation, and models if they are public. It owns nothing."""

PURPOSE_CHARS_MAX = 200
SCHEME = "bearer "
SUBPROTOCOL = "bearer."


def everybody_is(principal: Principal) -> Authenticate:
    """A hook that takes every request for ``principal``'s: for tests of what lies behind it."""

    async def authenticate(_: Request) -> Principal:
        return principal

    return authenticate


def identified_by(identify: Identify, *, store: EventStore, clock: Clock, ids: Ids) -> Authenticate:
    """A hook that judges what a request presents, and has recorded what it reads of others."""

    async def authenticate(request: Request) -> Principal:
        sent = cast("HttpRequest", request)
        address = sent.origin.address or request.ip
        try:
            credential = credential_of(request)
        except InvalidCredential as error:
            if not await identify.open_to_all():
                identify.count(error, address=address, request_id=sent.request_id)
                raise
            credential = None
        principal = await identify.run(credential, address=address, request_id=sent.request_id)
        visit = RecordedVisit(
            store=store,
            clock=clock,
            ids=ids,
            request_id=sent.request_id,
            correlation_id=sent.correlation_id,
            purpose=purpose_of(request),
        )
        return replace(principal, visit=visit)

    return authenticate


def credential_of(request: Request) -> str | None:
    """What the request presents, in ``Authorization: Bearer`` (RFC 6750) or ``X-API-Key``.

    Scripts of browsers can set neither where they open a WebSocket: theirs is a subprotocol, ``bearer.`` and the
    credential, which is never the one that is chosen and so is never sent back.

    Raises:
        InvalidCredential: two that differ, or a scheme that is not known.
    """
    headers = request.headers
    if "authorization" not in headers and "x-api-key" not in headers and "upgrade" not in headers:
        return None
    given = set(headers.getall("x-api-key", []))
    for value in headers.getall("authorization", []):
        if not value.lower().startswith(SCHEME):
            raise InvalidCredential("the Authorization header must be 'Bearer ' and an API key or token", known_as="-")
        given.add(value[len(SCHEME) :])
    if isinstance(request, HttpRequest) and request.is_upgrade:
        given |= set(credentials_among(headers.getall("sec-websocket-protocol", [])))
    found = {value.strip() for value in given} - {""}
    if len(found) > 1:
        raise InvalidCredential("the request presents two credentials that differ; send one", known_as="-")
    return found.pop() if found else None


def credentials_among(subprotocols: Iterable[str]) -> list[str]:
    """The credentials among the values of ``Sec-WebSocket-Protocol``."""
    offered = [one.strip() for value in subprotocols for one in value.split(",")]
    return [one.removeprefix(SUBPROTOCOL) for one in offered if one.startswith(SUBPROTOCOL)]


def purpose_of(request: Request) -> str | None:
    """Why something is read that is another's, as the reader says it.

    Raises:
        RequestRefused: it is too long, or has characters that are not for a reader's eyes.
    """
    purpose: str | None = request.headers.get("x-access-purpose")
    if not purpose:
        return None
    if len(purpose) > PURPOSE_CHARS_MAX or not purpose.isprintable():
        raise RequestRefused(
            "invalid_value",
            f"X-Access-Purpose must be at most {PURPOSE_CHARS_MAX} printable characters",
            param="X-Access-Purpose",
        )
    return purpose
