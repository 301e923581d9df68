"""Middleware of plugins around a handler: the facts of the exchange, and of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sanic import HTTPResponse

from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import ERRORS, row_of
from manent.adapters.http.route import Route
from manent.domain.errors import DomainError
from manent.domain.extensions import AnswerFacts, RequestFacts

SERVER_FAULT = 500


async def passed(
    route: Route, exchange: Exchange, handle: Callable[[], Awaitable[HTTPResponse | None]]
) -> HTTPResponse | None:
    """What ``handle`` answers, if the middleware lets the request pass; health and documentation have none."""
    chain = exchange.services.middleware
    if not chain or not route.under_v1:
        return await handle()
    request = exchange.request
    facts = RequestFacts(
        operation=route.name,
        method=route.method,
        path=request.path,
        tenant=exchange.principal.tenant,
        subject=exchange.principal.subject,
        request_id=request.request_id,
        correlation_id=request.correlation_id,
    )
    names = await chain.before(facts)
    status = SERVER_FAULT
    try:
        answer = await handle()
        status = route.status if answer is None else answer.status
    except DomainError as error:
        status = row_of(error).status
        raise
    except asyncio.CancelledError:
        status = ERRORS["client_disconnected"].status
        raise
    else:
        return answer
    finally:
        await chain.after(names, facts, AnswerFacts(status=status, elapsed_s=request.elapsed_ms / 1000))
