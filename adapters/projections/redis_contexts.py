"""Contexts in Redis (7 or newer) or Valkey (8 or newer), which all servers of a log share.

Keys, ``<log>`` being the log's id: ``manent:<log>:epoch`` names the current epoch, and
``manent:<log>:<epoch>:{<tenant>/<session>}`` holds a session's frames (frames.py). Each expires when nobody has used it
for the time to live. The epoch is asked for together with every look-up, so that a switch is seen at once.

Nothing here is trusted: what cannot be read is deleted, and what can be is compared with the log by its reader.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard
from urllib.parse import quote, unquote

from redis.exceptions import ResponseError

from manent.adapters.projections.frames import (
    TRAILER,
    Growth,
    growth,
    is_too_large,
    read_state,
    version_of,
    whole_value,
)
from manent.adapters.projections.redis_link import Command, RedisLink
from manent.adapters.projections.scripts import WRITE, Verdict
from manent.domain.ports import Ids
from manent.domain.projections import CacheSize, CacheUnavailable, ContextUnreadable, SessionKey
from manent.domain.session import SessionState

EPOCH = re.compile(rb"e[0-9a-f]{32}")
EPOCH_TRIES = 3
SCAN_KEYS = 1000
BULK_TIMEOUT_S = 30.0

_log = logging.getLogger("manent.projections")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextLimits:
    """How long a context stays unused, seconds, and how large it may be, bytes."""

    ttl_s: float = 24 * 3600.0
    session_bytes_max: int = 4 * 1024 * 1024


class RedisContextCache:
    """Implements ``SharedContexts``."""

    def __init__(self, link: RedisLink, *, log_id: str, ids: Ids, limits: ContextLimits | None = None) -> None:
        self._link = link
        self._prefix = f"manent:{log_id}:"
        self._ids = ids
        self._limits = limits or ContextLimits()
        self._ttl_ms = max(1, int(self._limits.ttl_s * 1000))
        self._epoch = ""

    async def get(self, tenant: str, session_id: str) -> SessionState | None:
        """See ``ContextCache.get``."""
        key, value = await self._in_epoch(tenant, session_id, lambda key: ("GETEX", key, "PX", self._ttl_ms))
        try:
            return _read(value, tenant, session_id)
        except ContextUnreadable as error:
            _log.warning("deleted %s, which is no context: %s", key, error.message)
            await self._link.one("DEL", key)
            return None

    async def put(self, state: SessionState, *, before: SessionState | None = None) -> None:
        """See ``ContextCache.put``."""
        if before is not None and before.version > 0:
            verdict = await self._write(state, growth(state, before))
            if verdict not in {Verdict.GAP, Verdict.FULL}:
                return
        await self._write(state, growth(state))

    async def forget(self, tenant: str, session_id: str) -> None:
        """See ``ContextCache.forget``."""
        await self._in_epoch(tenant, session_id, lambda key: ("DEL", key))

    async def versions(self, sessions: Sequence[SessionKey]) -> list[int | None]:
        """See ``SharedContexts.versions``."""
        epoch = await self.epoch()
        keys = [self._key(epoch, *session) for session in sessions]
        tails = await self._link.many([("GETRANGE", key, -TRAILER.size, -1) for key in keys])
        return [version_of(tail) if isinstance(tail, bytes) else 0 for tail in tails]

    async def peek(self, tenant: str, session_id: str) -> SessionState | None:
        """See ``SharedContexts.peek``."""
        _, value = await self._in_epoch(tenant, session_id, lambda key: ("GET", key))
        return _read(value, tenant, session_id)

    async def epoch(self) -> str:
        """See ``SharedContexts.epoch``."""
        for _ in range(EPOCH_TRIES):
            (found,) = await self._link.several([("GET", self._epoch_key)])
            if _is_epoch(found):
                self._epoch = found.decode()
                return self._epoch
            # What is no epoch is overwritten; where there is none, the first who comes makes it.
            await self._link.one("SET", self._epoch_key, self._ids.new("e"), *(("NX",) if found is None else ()))
        raise CacheUnavailable("the epoch in Redis is changed all the time")

    async def begin_epoch(self) -> str:
        """See ``SharedContexts.begin_epoch``."""
        await self._link.one("PING")
        return self._ids.new("e")

    async def fill(self, epoch: str, states: Sequence[SessionState]) -> None:
        """See ``SharedContexts.fill``."""
        # Nobody else writes to an epoch that is not current, so that the script has nothing to judge.
        commands: list[Command] = []
        for state in states:
            key, grown = self._key(epoch, state.tenant, state.session_id), growth(state)
            value = whole_value(grown, self._limits.session_bytes_max)
            commands.append(("SET", key, value, "PX", self._ttl_ms))
        for answer in await self._link.many(commands, timeout_s=BULK_TIMEOUT_S):
            if isinstance(answer, Exception):
                raise CacheUnavailable(f"Redis: {answer}")

    async def switch(self, epoch: str) -> None:
        """See ``SharedContexts.switch``."""
        await self._link.one("SET", self._epoch_key, epoch)
        self._epoch = epoch

    async def kept(self, epoch: str) -> AsyncGenerator[SessionKey, None]:
        """See ``SharedContexts.kept``."""
        async for found in self._scan(epoch):
            for _, session in found:
                yield session

    async def size(self, epoch: str) -> CacheSize:
        """See ``SharedContexts.size``."""
        sessions = memory_bytes = 0
        async for found in self._scan(epoch):
            asked: list[Command] = [("MEMORY", "USAGE", key) for key, _ in found]
            usages = await self._link.several(asked, timeout_s=BULK_TIMEOUT_S) if asked else []
            sessions += len(found)
            memory_bytes += sum(usage for usage in usages if isinstance(usage, int))
        return CacheSize(sessions=sessions, memory_bytes=memory_bytes)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._link.aclose()

    async def _write(self, state: SessionState, grown: Growth) -> Verdict:
        _, verdict = await self._in_epoch(state.tenant, state.session_id, lambda key: self._writing(key, grown))
        return Verdict(verdict)

    def _writing(self, key: str, grown: Growth) -> Command:
        bytes_max, body, checksum = self._limits.session_bytes_max, grown.body, grown.checksum
        if grown.from_version == 0 and len(body) > bytes_max:
            body, checksum = b"", -1
        return ("EVAL", WRITE, 1, key, body, checksum, grown.from_version, grown.version, self._ttl_ms, bytes_max)

    async def _in_epoch(self, tenant: str, session_id: str, command: Callable[[str], Command]) -> tuple[str, Any]:
        """The key of a session in the current epoch, and the answer to a command on it."""
        for _ in range(EPOCH_TRIES):
            epoch = self._epoch or await self.epoch()
            key = self._key(epoch, tenant, session_id)
            current, answer = await self._link.many([("GET", self._epoch_key), command(key)])
            if _is_epoch(current) and current.decode() == epoch:
                if isinstance(answer, Exception) and not _is_of_another_type(answer):
                    raise CacheUnavailable(f"Redis: {answer}")
                return key, answer
            self._epoch = ""
        raise CacheUnavailable("the epoch in Redis is changed all the time")

    @property
    def _epoch_key(self) -> str:
        return f"{self._prefix}epoch"

    def _key(self, epoch: str, tenant: str, session_id: str) -> str:
        return f"{self._prefix}{epoch}:{{{quote(tenant, safe='')}/{quote(session_id, safe='')}}}"

    async def _scan(self, epoch: str) -> AsyncGenerator[list[tuple[str, SessionKey]], None]:
        """The keys of an epoch with their sessions, some at a time; what is no key of ours is left out."""
        begin, cursor = f"{self._prefix}{epoch}:{{", b"0"
        while True:
            scan = ("SCAN", cursor, "MATCH", f"{begin}*}}", "COUNT", SCAN_KEYS)
            cursor, keys = await self._link.one(*scan, timeout_s=BULK_TIMEOUT_S)
            names = [key.decode("utf-8", "replace") for key in keys]
            yield [(name, session) for name in names if (session := _session(name.removeprefix(begin))) is not None]
            if int(cursor) == 0:
                return


def _session(name: str) -> SessionKey | None:
    tenant, slash, session_id = name.removesuffix("}").partition("/")
    return (unquote(tenant), unquote(session_id)) if slash else None


def _read(value: object, tenant: str, session_id: str) -> SessionState | None:
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise ContextUnreadable("it is of another type")
    return None if is_too_large(value) else read_state(value, tenant, session_id)


def _is_of_another_type(answer: Exception) -> bool:
    return isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE")


def _is_epoch(value: object) -> TypeGuard[bytes]:
    return isinstance(value, bytes) and EPOCH.fullmatch(value) is not None
