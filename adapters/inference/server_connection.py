"""The runner's end of its connection to the server."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from threading import Lock

from manent.adapters.inference.protocol import (
    LENGTH,
    RunnerFrame,
    ServerFrame,
    check_length,
    decode_server_frame,
    encode,
)


class ServerConnection:
    """The runner's end: blocking, read by one thread and written by several.

    A write blocks while the server does not read, which is how a slow server slows its runner down; it cannot block
    for ever, since the server's end closes with its process.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._writing = Lock()

    def read(self) -> ServerFrame | None:
        """The next frame, or None when the server is gone."""
        head = self._read_exactly(LENGTH.size)
        if head is None:
            return None
        (length,) = LENGTH.unpack(head)
        check_length(length)
        body = self._read_exactly(length)
        return None if body is None else decode_server_frame(body)

    def write(self, frames: Sequence[RunnerFrame]) -> None:
        """Send all frames in one piece; OSError when the server is gone."""
        data = b"".join(map(encode, frames))
        with self._writing:
            self._connection.sendall(data)

    def _read_exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self._connection.recv(min(size - len(data), 2**20))
            except ConnectionError:
                return None
            if not piece:
                return None
            data += piece
        return bytes(data)
