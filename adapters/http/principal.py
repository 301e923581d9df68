"""Who asks. For now everybody is the one local principal; identity (keys, tokens) replaces this module's hook."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sanic import Request

from manent.domain.access import Principal, Scope

Authenticate = Callable[[Request], Awaitable[Principal]]

LOCAL_PRINCIPAL = Principal(tenant="local", subject="local", scopes=frozenset({Scope.AUDIT, Scope.ADMIN}))


def everybody_is(principal: Principal) -> Authenticate:
    """A hook that takes every request for ``principal``'s: right on a loopback address, and nowhere else."""

    async def authenticate(_: Request) -> Principal:
        return principal

    return authenticate
