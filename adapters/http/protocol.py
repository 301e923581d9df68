"""Sanic's connection with the bounds that it lacks, in number, in time and in what is taken for HTTP."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

import msgspec
from sanic.exceptions import BadRequest, RequestCancelled, SanicException
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE
from sanic.server import HttpProtocol

from manent.adapters.http.request import RequestContext
from manent.adapters.http.strict_head import check_chunk_line

CHUNK_LINE_BYTES_MAX = 256
CRLF = b"\r\n"
RETRY_S = 1


class ClientStalled(RequestCancelled):
    """The client does not read what it asked for; its connection is cut."""


class Upgraded(Protocol):
    """What a connection is once it is no more HTTP."""

    def received(self, data: bytes) -> None:
        """Take what arrived."""
        ...

    def readable(self) -> None:
        """The client has read what went before: read on, unless there is another reason not to."""
        ...

    def lost(self) -> None:
        """The connection is gone."""
        ...

    def drain(self) -> None:
        """Begin nothing new, and close when what runs has ended; called again and again."""
        ...


class BoundedHttp(Http):
    """HTTP/1.1 that takes no chunk for what it is not, and remembers since when it waits for the rest of a request."""

    __slots__ = ("waiting_since_s",)

    def __init__(self, protocol: BoundedHttpProtocol) -> None:
        super().__init__(protocol)  # type: ignore[no-untyped-call]  # Sanic's
        self.request_body = None  # looked at before the first request begins
        self.waiting_since_s: float | None = None

    def init_for_request(self) -> None:
        """Forget what was of the request before."""
        super().init_for_request()  # type: ignore[no-untyped-call]  # Sanic's
        self.waiting_since_s = None

    def create_empty_request(self) -> None:
        """Make up a request to answer what was none; where its address is none either, one without it."""
        try:
            super().create_empty_request()
        except SanicException:
            self.url = None
            super().create_empty_request()

    async def read(self) -> bytes | None:
        """Some bytes of the body.

        Raises:
            BadRequest: a chunk does not begin or end as it should.
        """
        if cast("object", self.request_body) == "chunked" and self.request_bytes_left == 0:
            await self._check_chunk()
        data: bytes | None = await super().read()
        return data

    async def _check_chunk(self) -> None:
        """Look at the line in front of a chunk; Sanic reads it with ``int`` and does not look at what ends the last."""
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        buffer: bytearray = self.recv_buffer
        while (end := buffer.find(CRLF, 2)) < 0 and len(buffer) <= CHUNK_LINE_BYTES_MAX:
            await self._receive_more()
        try:
            check_chunk_line(bytes(buffer[:end]) if 0 < end <= CHUNK_LINE_BYTES_MAX else b"")
        except BadRequest:
            self.keep_alive = False
            raise


class BoundedHttpProtocol(HttpProtocol):
    """A connection, one of a bounded number; what it waits for is bounded as well.

    Writes wait at most ``stall_timeout_s`` for the client to read what went before. A header must be there within its
    time, however steadily it drips. Where there are as many connections as may be, the one that was idle longest makes
    room; where none is idle, the new one is told to come again.
    """

    HTTP_CLASS = BoundedHttp

    __slots__ = ("_parting", "_upgraded")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._parting = False
        self._upgraded: Upgraded | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        transport = cast("asyncio.Transport", transport)
        connections = cast("set[BoundedHttpProtocol]", self.connections)
        if len(connections) >= self._context.connections_max and not _make_room(connections):
            transport.write(_too_many(self._context.connections_max))
            transport.close()
            return
        super().connection_made(transport)  # type: ignore[no-untyped-call]  # Sanic's

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._upgraded is not None:
            self._upgraded.lost()
        if self.transport is not None or self.conn_info is not None:
            super().connection_lost(exc)  # type: ignore[no-untyped-call]  # Sanic's

    def data_received(self, data: bytes) -> None:
        """Take what arrived, unless this connection was turned away."""
        if self._upgraded is not None:
            self._upgraded.received(data)
        elif self.conn_info is not None:
            super().data_received(data)

    def check_timeouts(self) -> None:
        """Hold what drips to the time of what does not come at all; called again and again by itself.

        That is a header, or the rest of a body whose request is answered already.
        """
        http = cast("BoundedHttp | None", self.http)
        if http is not None and (http.stage is Stage.REQUEST or (http.stage is Stage.IDLE and http.request_body)):
            if http.waiting_since_s is None:
                http.waiting_since_s = self._time
            self._time = http.waiting_since_s
        super().check_timeouts()  # type: ignore[no-untyped-call]  # Sanic's

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

    def upgrade(self, upgraded: Upgraded) -> None:
        """Hand over to ``upgraded``, with what arrived already."""
        self._upgraded = upgraded
        data = bytes(self.recv_buffer)
        self.recv_buffer.clear()
        self.read_on()
        if data:
            upgraded.received(data)

    def resume_writing(self) -> None:
        """The client has read on; so does the server, where it had stopped for that."""
        super().resume_writing()  # type: ignore[no-untyped-call]  # Sanic's
        if self._upgraded is not None:
            self._upgraded.readable()

    def close_if_idle(self) -> bool:
        """Close if nothing is asked and nothing is answered; what is no more HTTP sees to it itself."""
        if self._upgraded is not None:
            self._upgraded.drain()
            return True
        return bool(super().close_if_idle())

    def write(self, data: bytes) -> None:
        """Send ``data`` behind what is not read yet; for little, and for what waited until ``writable``."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    async def writable(self) -> None:
        """Return once the client has read enough of what went before.

        Raises:
            ClientStalled: it did not; the connection is closed.
        """
        if not self._can_write.is_set():
            await self._wait_for_reader()

    @property
    def is_unread(self) -> bool:
        """Whether the client has not read enough of what went before."""
        return not self._can_write.is_set()

    def read_no_more(self) -> None:
        """Leave what the client sends in its own buffers until ``read_on``."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Take what the client sends."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

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

    @property
    def idle_since_s(self) -> float | None:
        """Since when nothing was asked and nothing is answered; None where something is."""
        http = self.http
        return self._time if http is None or http.stage is Stage.IDLE else None

    @property
    def _context(self) -> RequestContext:
        return cast("RequestContext", self.app.ctx.http)

    async def _wait_for_reader(self) -> None:
        try:
            async with asyncio.timeout(self._context.stall_timeout_s):
                await self._can_write.wait()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            raise ClientStalled from None


def _make_room(connections: set[BoundedHttpProtocol]) -> bool:
    """Cut the connection that was idle longest; whether there was one."""
    idle = [(since_s, id(one), one) for one in connections if (since_s := one.idle_since_s) is not None]
    if not idle:
        return False
    _, _, oldest = min(idle)
    connections.discard(oldest)
    if oldest.transport is not None:
        oldest.transport.abort()
    return True


def _too_many(connections_max: int) -> bytes:
    """An answer for whoever is turned away."""
    error = {
        "message": f"the server has as many connections as it may have ({connections_max}); try again",
        "type": "server_error",
        "param": None,
        "code": "too_many_connections",
    }
    body = msgspec.json.encode({"error": error})
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
        f"retry-after: {RETRY_S}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
