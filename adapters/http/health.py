"""Health and welcome: whether the process lives, whether it can work, and where things are."""

from __future__ import annotations

import asyncio
from typing import Literal

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.wire_responses import Live, Ready, Welcome
from manent.domain.health import Health


async def live(exchange: Exchange) -> HTTPResponse:
    """The process answers; nothing else is looked at."""
    return json_answer(Live(version=exchange.services.version))


async def ready(exchange: Exchange) -> HTTPResponse:
    """Whether requests can be served; 503 with the named problems where not."""
    health = await _looked(exchange)
    return _told(health, is_ready=not health.problems)


async def startup(exchange: Exchange) -> HTTPResponse:
    """Whether the start is over: 503 until requests could be served for the first time, 200 ever after."""
    health = await _looked(exchange)
    return _told(health, is_ready=health.started)


async def _looked(exchange: Exchange) -> Health:
    timeout_s = exchange.limits.ready_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            return await exchange.services.health()
    except TimeoutError:
        return Health(problems={"ready": f"the checks did not answer within {timeout_s:g} s"}, started=False)


def _told(health: Health, *, is_ready: bool) -> HTTPResponse:
    problems, degraded = dict(health.problems), dict(health.degraded)
    if not is_ready:
        return json_answer(Ready(status="not_ready", problems=problems, degraded=degraded), status=503)
    status: Literal["ready", "degraded"] = "degraded" if problems or degraded else "ready"
    return json_answer(Ready(status=status, problems=problems, degraded=degraded))


async def welcome(exchange: Exchange) -> HTTPResponse:
    """Where things are."""
    return json_answer(Welcome(version=exchange.services.version))
