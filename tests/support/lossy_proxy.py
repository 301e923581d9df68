"""A proxy before a server that loses the rest of an answer: for clients that come back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 1 << 16


class LossyProxy:
    """Passes bytes on; of the answers to come, each lets through as many bytes as ``cuts`` says, and is then cut.

    Answers that ``cuts`` knows nothing of are whole. ``requests`` has what clients sent, one for each connection.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.port = 0
        self.cuts: deque[int] = deque()
        self.requests: list[bytes] = []
        self._open: list[asyncio.StreamWriter] = []

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side or a cut ends it."""
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        number = len(self.requests)
        self.requests.append(b"")
        self._open.append(writer)
        sending = asyncio.create_task(self._send(number, reader, to_server))
        try:
            await self._answer(from_server, writer)
        finally:
            sending.cancel()
            await asyncio.wait({sending})
            for side in (to_server, writer):
                side.transport.abort()

    def break_off(self) -> None:
        """Break all connections."""
        for writer in self._open:
            writer.transport.abort()

    async def _send(self, number: int, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            self.requests[number] += data
            to_server.write(data)

    async def _answer(self, from_server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left: int | None = None
        with suppress(OSError):
            while data := await from_server.read(CHUNK_BYTES):
                if left is None and self.cuts:
                    left = self.cuts.popleft()
                writer.write(data if left is None else data[:left])
                await writer.drain()
                left = None if left is None else left - len(data)
                if left is not None and left <= 0:
                    await asyncio.sleep(0.02)  # what was let through arrives before the connection breaks
                    return


@asynccontextmanager
async def lossy_proxy(port: int) -> AsyncGenerator[LossyProxy, None]:
    """A proxy before the server that listens on ``port`` of this machine."""
    proxy = LossyProxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await asyncio.sleep(0.05)  # connections that were closed a moment ago end their tasks
