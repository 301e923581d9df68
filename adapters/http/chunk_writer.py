"""What the chunks of a completion are written to: an answer of server-sent events, or the frames of a WebSocket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from manent.adapters.http.stream_cursor import Chunk
from manent.domain.errors import DomainError
from manent.domain.usecases.reader import Reader


class ChunkWriter(Protocol):
    """One stream. Writing raises ClientStalled where the client does not read what went before."""

    @property
    def ping_interval_s(self) -> float:
        """How long it may be silent."""
        ...

    async def chunks(self, chunks: Sequence[Chunk]) -> None:
        """Send ``chunks``, or a sign of life where there are none."""
        ...

    async def finish(self, chunks: Sequence[Chunk]) -> None:
        """Send ``chunks``, the last ones, and that nothing follows."""
        ...

    async def fail(self, error: DomainError) -> None:
        """Send why nothing follows."""
        ...


class ChunkFrames(Protocol):
    """What a request that came over a WebSocket is answered with."""

    async def open(self, reader: Reader) -> ChunkWriter:
        """Begin to tell what ``reader`` follows."""
        ...
