"""A receiver of webhooks on a real socket, that answers as a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

WAIT_S = 20.0


@dataclass
class Message:
    """What came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def position(self) -> int:
        """The event's."""
        found: int = json.loads(self.body)["data"]["header"]["position"]
        return found

    @property
    def data(self) -> dict[str, Any]:
        """The event as it was sent."""
        found: dict[str, Any] = json.loads(self.body)["data"]
        return found


@dataclass
class Receiver:
    """It answers with ``status``; ``hangs`` answers nothing. ``taken`` are the messages that were answered with 2xx."""

    status: int = 204
    location: str = ""
    hangs: bool = False
    port: int = 0
    seen: list[Message] = field(default_factory=list)
    taken: list[Message] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def until(self, taken: int) -> list[Message]:
        """The messages taken, once there are so many."""
        async with asyncio.timeout(WAIT_S):
            while len(self.taken) < taken:
                self._changed.clear()
                await self._changed.wait()
        return self.taken

    async def until_seen(self, seen: int) -> list[Message]:
        """The messages that came in, once there are so many."""
        async with asyncio.timeout(WAIT_S):
            while len(self.seen) < seen:
                self._changed.clear()
                await self._changed.wait()
        return self.seen

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer; the connection ends with it."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:]) if name}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            message = Message(lines[0].split(" ")[1], headers, body)
            self.seen.append(message)
            if self.hangs:
                self._changed.set()
                await reader.read()
            else:
                location = f"location: {self.location}\r\n" if self.location else ""
                writer.write(f"HTTP/1.1 {self.status} X\r\n{location}content-length: 0\r\n\r\n".encode())
                if 200 <= self.status < 300:
                    self.taken.append(message)
                self._changed.set()
        writer.close()


@asynccontextmanager
async def receiving(**how: Any) -> AsyncGenerator[Receiver, None]:
    """A receiver on loopback."""
    receiver = Receiver(**how)
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
