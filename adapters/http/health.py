"""Health and welcome: whether the process lives, whether it can work, and where things are."""

from __future__ import annotations

import asyncio

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.wire_responses import Live, Ready, Welcome


async def live(exchange: Exchange) -> HTTPResponse:
    """The process answers; nothing else is looked at."""
    return json_answer(Live(version=exchange.services.version))


async def ready(exchange: Exchange) -> HTTPResponse:
    """Whether requests can be served; 503 with the named problems where not."""
    timeout_s = exchange.limits.ready_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            problems = dict(await exchange.services.ready())
    except TimeoutError:
        problems = {"ready": f"the checks did not answer within {timeout_s:g} s"}
    if problems:
        return json_answer(Ready(status="not_ready", problems=problems), status=503)
    return json_answer(Ready(status="ready", problems={}))


async def welcome(exchange: Exchange) -> HTTPResponse:
    """Where things are."""
    return json_answer(Welcome(version=exchange.services.version))
