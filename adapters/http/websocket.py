"""One WebSocket (RFC 6455): messages in and out, within bounds of memory and time. What they say is not known here.

The frames are read and made by websockets' own protocol without input and output; the connection is ours, so that its
bounds hold: a client that does not read is not read either, and is cut when it has stalled for too long.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from manent.adapters.http.protocol import BoundedHttpProtocol

MESSAGES_MAX = 16
"""Messages that wait for the handler before no more are read."""
WAITING_BYTES_MAX = 256 * 1024
"""How much they may be together before no more are read; one alone may be as large as a message may be."""
GOODBYE_S = 0.5
"""How long the client has to close its side."""


def frame_logger() -> logging.Logger:
    """A logger that is in no registry, so that no setting makes it tell what frames say."""
    logger = logging.Logger("manent.http.websocket", logging.WARNING)  # noqa: LOG001 (see above)
    logger.parent = logging.getLogger("manent.http")
    return logger


class WebSocket:
    """An open WebSocket.

    Attributes:
        heard_at_s: when the client last said anything, as the loop counts seconds.
    """

    def __init__(self, frames: ServerProtocol, connection: BoundedHttpProtocol) -> None:
        """Go on with ``frames``, whose opening handshake was answered, on ``connection``."""
        self.heard_at_s = asyncio.get_running_loop().time()
        self._frames = frames
        self._connection = connection
        self._messages: deque[bytes] = deque()
        self._partial = bytearray()
        self._changed = asyncio.Event()
        self._working = 0
        self._draining = False
        self._lost = False
        connection.upgrade(self)

    async def receive(self) -> bytes | None:
        """The next text message, as it came; None once either side has closed."""
        while self.is_open and not self._messages:
            self._changed.clear()
            await self._changed.wait()
        if not self.is_open:
            return None
        message = self._messages.popleft()
        self.readable()
        return message

    async def send(self, message: bytes) -> None:
        """Send a text message; nothing where either side has closed.

        Raises:
            ClientStalled: the client did not read what went before.
        """
        await self._connection.writable()
        if self.is_open:
            self._frames.send_text(message)
            self._flush()

    async def ping(self) -> None:
        """Ask the client for a sign of life; raises as ``send``."""
        await self._connection.writable()
        if self.is_open:
            self._frames.send_ping(b"")
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Close, unless that was done."""
        if self.is_open:
            self._frames.send_close(code, reason)
            self._flush()
            self._changed.set()

    def cut(self) -> None:
        """End the connection without a word: nobody listens."""
        self._connection.abort()  # type: ignore[no-untyped-call]  # Sanic's

    async def goodbye(self) -> None:
        """Wait a moment for the client to close its side, so that it reads why ours was closed."""
        self._connection.read_on()
        try:
            async with asyncio.timeout(GOODBYE_S):
                while self._frames.close_rcvd is None and not self._lost:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    @property
    def is_open(self) -> bool:
        """Whether messages may go both ways."""
        return self._frames.state is State.OPEN and not self._lost

    @property
    def close_code(self) -> int:
        """Why it was closed, of whoever did it first."""
        close = self._frames.close_rcvd if self._frames.close_rcvd_then_sent else self._frames.close_sent
        return CloseCode.ABNORMAL_CLOSURE if close is None else close.code

    @contextmanager
    def working(self) -> Generator[None, None, None]:
        """For as long as the context lasts, a request is answered: a drain waits for it."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            if self._draining:
                self.drain()

    # What the connection calls.

    def received(self, data: bytes) -> None:
        """See ``Upgraded.received``."""
        self.heard_at_s = asyncio.get_running_loop().time()
        self._frames.receive_data(data)
        for event in self._frames.events_received():
            if isinstance(event, Frame):
                self._take(event)
        replied = self._flush()
        # Whoever sends pings and reads no pongs would have them pile up.
        if self._is_full or (replied and self._connection.is_unread):
            self._connection.read_no_more()
        self._changed.set()

    def readable(self) -> None:
        """See ``Upgraded.readable``."""
        if not self._is_full and not self._connection.is_unread:
            self._connection.read_on()

    def lost(self) -> None:
        """See ``Upgraded.lost``."""
        self._lost = True
        self._changed.set()

    def drain(self) -> None:
        """See ``Upgraded.drain``."""
        self._draining = True
        if not self._working:
            self.close(CloseCode.GOING_AWAY, "the server stops")

    @property
    def _is_full(self) -> bool:
        """Whether as many messages wait as may."""
        return len(self._messages) >= MESSAGES_MAX or sum(map(len, self._messages)) >= WAITING_BYTES_MAX

    def _take(self, frame: Frame) -> None:
        if not self.is_open or frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return
        if frame.opcode is Opcode.BINARY:
            self.close(CloseCode.UNSUPPORTED_DATA, "messages are text")
            return
        self._partial += frame.data
        if not frame.fin:
            return
        message = bytes(self._partial)
        self._partial.clear()
        try:
            message.decode("utf-8")
        except UnicodeDecodeError:
            self.close(CloseCode.INVALID_DATA, "a message is not UTF-8")
            return
        self._messages.append(message)

    def _flush(self) -> bool:
        """Send what is to be sent; whether there was anything."""
        written = [data for data in self._frames.data_to_send() if data]
        for data in written:
            self._connection.write(data)
        return bool(written)
