"""Streams in Redis Streams, which all servers of a log share: one entry a batch, whose field ``d`` is its bytes.

The key is ``manent:<log>:stream:{<tenant>/<completion id>}``; it expires when nothing was written for its time. The
number of all bytes is Redis's own to bound (``maxmemory``): what it evicts cannot be resumed, and nothing else happens.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.redis_link import RedisLink
from manent.adapters.projections.stream_codec import Batch, decode, encode, joined
from manent.adapters.projections.stream_limits import StreamLimits
from manent.domain.generation import TextDelta
from manent.domain.streams import StreamKey

PAGE = 1000
READERS_MAX = 4096

_log = logging.getLogger("manent.streams")


class RedisStreams:
    """Implements ``StreamBuffer``. A Redis that does not answer costs one timeout a period, and that stream's rest."""

    def __init__(
        self, link: RedisLink, breaker: CircuitBreaker, *, log_id: str, limits: StreamLimits | None = None
    ) -> None:
        self._link = link
        self._breaker = breaker
        self._prefix = f"manent:{log_id}:stream:"
        self._limits = limits or StreamLimits()
        self._sizes_bytes: dict[StreamKey, int] = {}
        self._lost: set[StreamKey] = set()
        self._places: OrderedDict[tuple[StreamKey, int], bytes] = OrderedDict()

    async def append(self, stream: StreamKey, start: int, deltas: Sequence[TextDelta]) -> None:
        """See ``StreamBuffer.append``."""
        if stream in self._lost:
            return
        data = encode(start, deltas)
        size_bytes = self._sizes_bytes.get(stream, 0) + len(data)
        if size_bytes > self._limits.stream_bytes_max or not await self._added(stream, data):
            _log.warning("the stream of %s cannot be resumed elsewhere from here on", stream.completion_id)
            self._lost.add(stream)
        else:
            self._sizes_bytes[stream] = size_bytes

    async def read(self, stream: StreamKey, start: int) -> Sequence[TextDelta]:
        """See ``StreamBuffer.read``."""
        batches: list[Batch] = []
        # A reader that comes again goes on behind what it has read.
        after = self._places.pop((stream, start), b"-")
        with self._breaker.attempt() as allowed:
            while allowed:
                (entries,) = await self._link.several([("XRANGE", self._key(stream), after, "+", "COUNT", PAGE)])
                if isinstance(entries, Exception):  # somebody else's value stands there
                    break
                found = _batches(entries)
                batches += found
                if entries:
                    after = b"(" + bytes(entries[-1][0])
                if len(entries) < PAGE or len(found) < len(entries):
                    break
        deltas = joined(batches, start)
        if after != b"-":
            self._places[stream, start + len(deltas)] = after
            while len(self._places) > READERS_MAX:
                self._places.popitem(last=False)
        return deltas

    async def end(self, stream: StreamKey) -> None:
        """See ``StreamBuffer.end``."""
        self._sizes_bytes.pop(stream, None)
        self._lost.discard(stream)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._link.aclose()

    async def _added(self, stream: StreamKey, data: bytes) -> bool:
        key, keep_ms = self._key(stream), max(1, int(self._limits.keep_s * 1000))
        with self._breaker.attempt() as allowed:
            if allowed:
                answers = await self._link.several([("XADD", key, "*", "d", data), ("PEXPIRE", key, keep_ms)])
                return not any(isinstance(answer, Exception) for answer in answers)
        return False

    def _key(self, stream: StreamKey) -> str:
        return f"{self._prefix}{{{quote(stream.tenant, safe='')}/{quote(stream.completion_id, safe='')}}}"


def _batches(entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Batch]:
    """What the entries hold, up to the first that somebody else wrote."""
    batches: list[Batch] = []
    for _, fields in entries:
        batch = decode(fields.get(b"d", b""))
        if batch is None:
            break
        batches.append(batch)
    return batches
