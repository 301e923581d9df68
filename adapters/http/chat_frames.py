"""What a server says on a WebSocket: the chunks of server-sent events, each with the id of the request it is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from manent.adapters.http.errors import error_body, row_of
from manent.adapters.http.protocol import ClientStalled
from manent.adapters.http.request import HttpRequest
from manent.adapters.http.stream_cursor import Chunk
from manent.adapters.http.websocket import WebSocket
from manent.domain.errors import DomainError
from manent.domain.usecases.reader import Reader


class ChatFrames:
    """The answer to one message: ``opened``, ``chunk`` …, and ``done`` or ``error``; see ``ChunkWriter``.

    Silence is nothing to fill: the socket itself is kept alive by its pings.

    Attributes:
        is_ended: whether nothing follows what was said last.
        is_told: whether that was sent, so that the client may count on it.
    """

    def __init__(
        self, websocket: WebSocket, message_id: str | None, request: HttpRequest, *, ping_interval_s: float
    ) -> None:
        self.is_ended = self.is_told = False
        self._websocket = websocket
        self._id = msgspec.json.encode(message_id)
        self._request = request
        self._ping_interval_s = ping_interval_s
        self._reader: Reader | None = None

    @property
    def ping_interval_s(self) -> float:
        """See ``ChunkWriter.ping_interval_s``."""
        return self._ping_interval_s

    async def open(self, reader: Reader) -> ChatFrames:
        """Tell by what the completion is found again, before there is any chunk."""
        self._reader = reader
        running = reader.running
        opened = {"request_id": self._request.request_id, "completion_id": running.completion_id}
        await self._send(b'{"type":"opened","id":%b,%b' % (self._id, msgspec.json.encode(opened)[1:]))
        self._request.is_stream = True  # not before: what cannot be opened is logged as a request that failed
        return self

    async def chunks(self, chunks: Sequence[Chunk]) -> None:
        """See ``ChunkWriter.chunks``."""
        for chunk in chunks:
            cursor = str(chunk.cursor).encode()
            await self._send(b'{"type":"chunk","id":%b,"cursor":"%b","data":%b}' % (self._id, cursor, chunk.data))

    async def finish(self, chunks: Sequence[Chunk]) -> None:
        """See ``ChunkWriter.finish``."""
        await self.chunks(chunks)
        self.is_ended = True
        await self._send(b'{"type":"done","id":%b}' % self._id)
        self.is_told = True

    async def fail(self, error: DomainError) -> None:
        """See ``ChunkWriter.fail``: HTTP's status and envelope, and when to try again where that helps."""
        self.is_ended = True
        more: dict[str, Any] = {"status": row_of(error).status, "request_id": self._request.request_id}
        if error.retry_after_s is not None:
            more["retry_after_s"] = error.retry_after_s
        members = msgspec.json.encode(more)[1:-1]
        await self._send(b'{"type":"error","id":%b,%b,%b' % (self._id, members, error_body(error)[1:]))
        self.is_told = True

    async def _send(self, message: bytes) -> None:
        try:
            await self._websocket.send(message)
        except ClientStalled:
            if self._reader is not None:  # the disconnect that follows is not the reason to record
                self._reader.leave("client_stalled")
            raise
