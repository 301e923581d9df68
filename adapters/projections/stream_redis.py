"""Streams in Redis Streams, which all servers of a log share: one entry a batch, whose field ``d`` is its bytes.

The key is ``manent:<log>:stream:{<tenant>/<completion id>}``; it expires when nothing was written for its time. The
number of all bytes is Redis's own to bound (``maxmemory``): what it evicts cannot be resumed, and nothing else happens.

What streams want to write while an answer is awaited is sent together: eight streams in step cost one round trip.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.redis_link import Command, RedisLink
from manent.adapters.projections.stream_codec import Batch, decode, encode, joined
from manent.adapters.projections.stream_limits import StreamLimits
from manent.domain.generation import TextDelta
from manent.domain.streams import StreamKey

PAGE = 1000
READERS_MAX = 4096
WRITES_MAX = 256
"""How many batches are sent together."""
EXPIRY_SHARE = 0.1
"""What a key may live beyond its time, as a share of it; it is told to expire again no more often than that."""

_log = logging.getLogger("manent.streams")


@dataclass(slots=True)
class _Written:
    """What was written of a stream that goes on, bytes, and when its key was last told to expire."""

    size_bytes: int = 0
    expiry_set_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Write:
    """A batch on its way; ``kept`` is told whether it arrived."""

    commands: Sequence[Command]
    kept: asyncio.Future[bool]


class RedisStreams:
    """Implements ``StreamBuffer``. A Redis that does not answer costs one timeout a period, and that stream's rest."""

    def __init__(
        self,
        link: RedisLink,
        breaker: CircuitBreaker,
        *,
        log_id: str,
        limits: StreamLimits | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._breaker = breaker
        self._prefix = f"manent:{log_id}:stream:"
        self._limits = limits or StreamLimits()
        self._monotonic_s = monotonic_s
        self._written: dict[StreamKey, _Written] = {}
        self._lost: set[StreamKey] = set()
        self._places: OrderedDict[tuple[StreamKey, int], bytes] = OrderedDict()
        self._waiting: list[_Write] = []
        self._sending: asyncio.Task[None] | None = None

    async def append(self, stream: StreamKey, start: int, deltas: Sequence[TextDelta]) -> None:
        """See ``StreamBuffer.append``."""
        if stream in self._lost:
            return
        data = encode(start, deltas)
        written = self._written.setdefault(stream, _Written())
        written.size_bytes += len(data)
        if written.size_bytes > self._limits.stream_bytes_max or not await self._added(stream, written, data):
            _log.warning("the stream of %s cannot be resumed elsewhere from here on", stream.completion_id)
            self._lost.add(stream)

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
        self._written.pop(stream, None)
        self._lost.discard(stream)

    async def aclose(self) -> None:
        """Send what waits, and close every connection."""
        if self._sending is not None:
            await asyncio.wait({self._sending})
        await self._link.aclose()

    async def _added(self, stream: StreamKey, written: _Written, data: bytes) -> bool:
        """Whether it is kept; sent together with what others add meanwhile."""
        key, now_s = self._key(stream), self._monotonic_s()
        # Only the first makes the key: one that is gone meanwhile would come back with a hole, and never expire.
        begins = () if written.expiry_set_s is None else ("NOMKSTREAM",)
        commands: list[Command] = [("XADD", key, *begins, "*", "d", data)]
        if written.expiry_set_s is None or now_s - written.expiry_set_s >= self._limits.keep_s * EXPIRY_SHARE:
            commands.append(("PEXPIRE", key, max(1, int(self._limits.keep_s * (1 + EXPIRY_SHARE) * 1000))))
            written.expiry_set_s = now_s
        write = _Write(commands, asyncio.get_running_loop().create_future())
        self._waiting.append(write)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="send streams to Redis")
        return await write.kept

    async def _send(self) -> None:
        """Send what waits until nothing does."""
        try:
            while self._waiting:
                await asyncio.sleep(0)  # what else comes in this turn of the loop goes along
                writes, self._waiting = self._waiting[:WRITES_MAX], self._waiting[WRITES_MAX:]
                await self._send_together(writes)
        finally:
            self._sending = None

    async def _send_together(self, writes: Sequence[_Write]) -> None:
        answers: list[Any] = []
        try:
            with self._breaker.attempt() as allowed:
                if allowed:
                    answers = await self._link.many([command for write in writes for command in write.commands])
        finally:
            at = 0
            for write in writes:
                own = answers[at : at + len(write.commands)]
                at += len(write.commands)
                if not write.kept.done():
                    write.kept.set_result(bool(own) and not any(_is_refusal(answer) for answer in own))

    def _key(self, stream: StreamKey) -> str:
        return f"{self._prefix}{{{quote(stream.tenant, safe='')}/{quote(stream.completion_id, safe='')}}}"


def _is_refusal(answer: Any) -> bool:
    """Whether nothing was written: an error, or no key to write to."""
    return answer is None or isinstance(answer, Exception)


def _batches(entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Batch]:
    """What the entries hold, up to the first that somebody else wrote."""
    batches: list[Batch] = []
    for _, fields in entries:
        batch = decode(fields.get(b"d", b""))
        if batch is None:
            break
        batches.append(batch)
    return batches
