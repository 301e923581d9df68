"""A real WebSocket client, and what a server says to it, message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support.http import USER, WAIT_S, Running

Said = dict[str, Any]


class Chats:
    """A connection on which chats are asked for."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, **members: Any) -> None:
        """Send a message."""
        await self.connection.send(json.dumps(members))

    async def ask(self, message_id: str, *, key: str | None = None, **members: Any) -> None:
        """Send a chat with defaults that work."""
        more = {} if key is None else {"idempotency_key": key}
        body = {"model": "default", "messages": [USER], **members}
        await self.say(type="chat", id=message_id, body=body, **more)

    async def hear(self) -> Said:
        """The next message."""
        async with asyncio.timeout(WAIT_S):
            said: Said = json.loads(await self.connection.recv())
        return said

    async def hear_all(self, *message_ids: str) -> dict[str, list[Said]]:
        """All messages until each of these requests has ended, by request; what others say meanwhile is among them."""
        heard: dict[str, list[Said]] = {one: [] for one in message_ids}
        while not all(heard[one] and heard[one][-1]["type"] in {"done", "error"} for one in message_ids):
            said = await self.hear()
            heard.setdefault(said["id"], []).append(said)
        return heard

    async def closed(self) -> tuple[int, str]:
        """The code and reason with which the server closes."""
        async with asyncio.timeout(WAIT_S):
            await self.connection.wait_closed()
        return self.connection.close_code or 0, self.connection.close_reason or ""


@asynccontextmanager
async def chats(
    running: Running, *, protocols: Sequence[str] = (), origin: str | None = None, **headers: str
) -> AsyncGenerator[Chats]:
    """Open a WebSocket; its handshake raises InvalidStatus where it is refused."""
    async with connect(
        f"ws://127.0.0.1:{running.port}/v1/ws/chat",
        subprotocols=[Subprotocol(one) for one in protocols] or None,
        origin=origin,  # type: ignore[arg-type]  # a NewType of str
        additional_headers=headers,
        close_timeout=WAIT_S,
        proxy=None,
    ) as connection:
        yield Chats(connection)


def chunks_of(said: Sequence[Said]) -> list[tuple[str, str]]:
    """The chunks: cursor, and what it says as JSON with no white space."""
    return [
        (one["cursor"], json.dumps(one["data"], separators=(",", ":"), ensure_ascii=False))
        for one in said
        if one["type"] == "chunk"
    ]
