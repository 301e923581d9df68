"""Who asks. For now everybody is the one local principal; identity (keys, tokens) replaces this module's hook."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sanic import Request

from manent.domain.access import Principal

Authenticate = Callable[[Request], Awaitable[Principal]]

NOBODY = Principal(tenant="", subject="")
"""Who asks where nobody is asked for: health and documentation. It owns nothing and may read nothing."""


def everybody_is(principal: Principal) -> Authenticate:
    """A hook that takes every request for ``principal``'s: right on a loopback address, and nowhere else."""

    async def authenticate(_: Request) -> Principal:
        return principal

    return authenticate
