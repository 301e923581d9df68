"""Sanic's connection with the one bound that it lacks: nobody waits for ever for a client that does not read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from sanic.exceptions import RequestCancelled
from sanic.server import HttpProtocol

from manent.adapters.http.request import RequestContext


class ClientStalled(RequestCancelled):
    """The client does not read what it asked for; its connection is cut."""


class BoundedHttpProtocol(HttpProtocol):
    """Writes wait at most ``stall_timeout_s`` for the client to read what went before."""

    __slots__ = ("_parting",)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._parting = False

    async def send(self, data: bytes) -> None:
        """Send ``data``.

        Raises:
            ClientStalled: the client did not read; the connection is closed, unsent data thrown away.
        """
        if self._parting and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)
            return
        if not self._can_write.is_set():
            await self._wait_for_reader()
        await super().send(data)  # type: ignore[no-untyped-call]  # Sanic's

    async def can_send(self, timeout_s: float) -> bool:
        """Whether the client has read enough of what went before, within ``timeout_s``."""
        if self._can_write.is_set():
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._can_write.wait()
        except TimeoutError:
            return False
        return True

    def part(self) -> None:
        """Let the last words be sent behind what the client has not read yet.

        They are few, and the connection closes behind them: within Sanic's GRACEFUL_TCP_CLOSE_TIMEOUT, read or not.
        """
        self._parting = True

    async def _wait_for_reader(self) -> None:
        context = cast("RequestContext", self.app.ctx.http)
        try:
            async with asyncio.timeout(context.stall_timeout_s):
                await self._can_write.wait()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            raise ClientStalled from None
