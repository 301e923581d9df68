"""What a WebSocket needs beside its messages: signs of life, a credential that still holds, an end when it is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.frames import CloseCode

from manent.adapters.http.context import Exchange
from manent.adapters.http.websocket import WebSocket
from manent.domain.access import Scope, check_entry
from manent.domain.errors import DomainError, StoreUnavailable

REASON_BYTES_MAX = 120


async def watch_socket(exchange: Exchange, websocket: WebSocket, is_used: Callable[[], bool]) -> None:
    """Watch until cancelled; ``is_used`` tells whether a request is answered.

    A client that says nothing, not even to pings, is cut after as long as one may leave a stream unread.
    """
    limits, now_s = exchange.limits, asyncio.get_running_loop().time
    step_s = min(limits.websocket_ping_s, limits.websocket_judge_s, limits.websocket_idle_s)
    used_at_s = pinged_at_s = now_s()
    while websocket.is_open:
        await asyncio.sleep(step_s)
        if now_s() - websocket.heard_at_s > limits.websocket_ping_s + limits.stall_timeout_s:
            websocket.cut()
            return
        if now_s() - pinged_at_s >= limits.websocket_ping_s:
            pinged_at_s = now_s()
            await websocket.ping()
        await _judge(exchange, websocket)
        if is_used():
            used_at_s = now_s()
        elif now_s() - used_at_s >= limits.websocket_idle_s:
            websocket.close(CloseCode.NORMAL_CLOSURE, f"nothing was asked for {limits.websocket_idle_s:g} s")


async def _judge(exchange: Exchange, websocket: WebSocket) -> None:
    """Close where who opened it may not come any more. A database that does not answer is no verdict."""
    try:
        principal = await exchange.services.authenticate(exchange.request)
        check_entry(principal, Scope.CHAT, reads=False)
    except StoreUnavailable:
        return
    except DomainError as error:
        reason = f"{error.code}: {error.message}".encode()[:REASON_BYTES_MAX].decode("utf-8", "ignore")
        websocket.close(CloseCode.POLICY_VIOLATION, reason)
