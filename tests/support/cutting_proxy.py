"""A proxy before PostgreSQL that cuts a connection at a chosen step of what the client sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import URL

from manent.adapters.store.postgres_link import connect_arguments

CHUNK_BYTES = 1 << 20


class CuttingProxy:
    """Passes bytes on. A driver that waits for each answer sends one chunk a step.

    ``cut_at`` is the step (1, 2, 3 … over all connections) at which the connection is cut: before the server sees it
    or, with ``swallow``, after the server has answered, the answer lost. ``shut`` refuses new connections.
    """

    def __init__(self, url: URL) -> None:
        arguments = connect_arguments(url)
        self._host, self._port = str(arguments.get("host", "localhost")), int(arguments.get("port", 5432))
        self.steps = 0
        self.cut_at = 0
        self.swallow = False
        self.shut = False
        self.shut_after_cut = False

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._host.startswith("/"):
            return await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        return await asyncio.open_connection(self._host, self._port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until one side ends it."""
        if self.shut:
            writer.close()
            return
        from_server, to_server = await self._open()
        back = asyncio.create_task(_pass_on(from_server, writer))
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                self.steps += 1
                if self.steps != self.cut_at:
                    to_server.write(chunk)
                    continue
                self.shut = self.shut_after_cut
                back.cancel()
                await asyncio.wait({back})
                if self.swallow:
                    to_server.write(chunk)
                    await from_server.read(CHUNK_BYTES)
                break
        except OSError:
            pass
        finally:
            back.cancel()
            await asyncio.wait({back})
            to_server.close()
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
    except OSError:
        pass
    writer.close()


@asynccontextmanager
async def cutting_proxy(url: URL) -> AsyncGenerator[tuple[CuttingProxy, URL], None]:
    """A proxy before the server of ``url``, and the URL that leads through it."""
    proxy = CuttingProxy(url)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, url.set(host="127.0.0.1", port=port, query={})
    finally:
        server.close()
        await asyncio.sleep(0.05)  # connections that were closed a moment ago end their tasks
