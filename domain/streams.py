"""Where the output of a running completion is kept beside the process that generates it, so that a lost connection,
another server or the next start can go on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from manent.domain.generation import TextDelta
from manent.domain.made_often import made_often


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class StreamKey:
    """The stream of one completion."""

    tenant: str
    completion_id: str


class StreamBuffer(Protocol):
    """Deltas by their number, from 0; bounded in bytes for each stream and in all, and in time.

    Nothing here raises: what cannot be kept is not, and what is not there any more is not found. A stream has no holes;
    once a delta is not kept, neither is any after it.
    """

    async def append(self, stream: StreamKey, start: int, deltas: Sequence[TextDelta]) -> None:
        """Keep ``deltas``, the first of which has number ``start``."""
        ...

    async def read(self, stream: StreamKey, start: int) -> Sequence[TextDelta]:
        """What is kept from number ``start`` on."""
        ...

    async def end(self, stream: StreamKey) -> None:
        """No more deltas come; what is there is kept for a while."""
        ...


class NoStreamBuffer:
    """Keeps nothing."""

    async def append(self, stream: StreamKey, start: int, deltas: Sequence[TextDelta]) -> None:
        """See ``StreamBuffer.append``."""

    async def read(self, stream: StreamKey, start: int) -> Sequence[TextDelta]:
        """See ``StreamBuffer.read``."""
        return ()

    async def end(self, stream: StreamKey) -> None:
        """See ``StreamBuffer.end``."""
