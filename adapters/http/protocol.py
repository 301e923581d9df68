"""Sanic's connection with the one bound that it lacks: nobody waits for ever for a client that does not read."""

from __future__ import annotations

import asyncio
from typing import cast

from sanic.exceptions import RequestCancelled
from sanic.server import HttpProtocol

from manent.adapters.http.request import RequestContext


class ClientStalled(RequestCancelled):
    """The client does not read what it asked for; its connection is cut."""


class BoundedHttpProtocol(HttpProtocol):
    """Writes wait at most ``stall_timeout_s`` for the client to read what went before."""

    async def send(self, data: bytes) -> None:
        """Send ``data``.

        Raises:
            ClientStalled: the client did not read; the connection is closed, unsent data thrown away.
        """
        if not self._can_write.is_set():
            await self._wait_for_reader()
        await super().send(data)  # type: ignore[no-untyped-call]  # Sanic's

    async def _wait_for_reader(self) -> None:
        context = cast("RequestContext", self.app.ctx.http)
        try:
            async with asyncio.timeout(context.stall_timeout_s):
                await self._can_write.wait()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            raise ClientStalled from None
