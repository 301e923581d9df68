"""The ``Idempotency-Key`` header of requests that write (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import hashlib

from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.request import safe_id
from manent.domain.records import IdempotencyKey


def idempotency_key(exchange: Exchange) -> IdempotencyKey | None:
    """The request's key, scoped to who sends it; the request is its address and the bytes of its body.

    Raises:
        RequestRefused: the key is not 1 to 128 visible ASCII characters.
    """
    given = exchange.request.headers.get("idempotency-key")
    if given is None:
        return None
    key = safe_id(given)
    if key is None:
        raise RequestRefused(
            "invalid_value",
            "Idempotency-Key must be 1 to 128 visible ASCII characters; a UUID will do",
            param="Idempotency-Key",
        )
    return IdempotencyKey(scope=scope_of(exchange), key=key, request_digest=request_digest(exchange))


def request_digest(exchange: Exchange) -> str:
    """What makes a request the same: its method, its address and the bytes of its body."""
    request = exchange.request
    return hashlib.sha256(f"{request.method} {request.path.removeprefix('/api')}\n".encode() + request.body).hexdigest()


def scope_of(exchange: Exchange) -> str:
    """Whose keys they are; a batch has keys of its own for its lines."""
    owner = f"{exchange.principal.tenant}/{exchange.principal.subject}"
    return owner if exchange.batch_id is None else f"{owner}/{exchange.batch_id}"
