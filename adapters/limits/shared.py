"""Limits that all servers of a log share, in Redis (7 or newer) or Valkey (8 or newer).

Keys, ``<log>`` being the log's id: ``manent:<log>:limit:<by>:<measure>:<period>:<name>``. A bucket is a string, what is
used and when (microseconds), and expires when it would be empty. What runs is a sorted set of leases by the time at
which they lapse: a server that ended without a word holds nothing for longer than ``LEASE_S``.

Checks that come together are sent together, each of them one call of one script: what runs in Redis runs alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from redis.exceptions import NoScriptError

from manent.adapters.limits.script import RENEW, TAKE
from manent.domain.limits import Charge, Limit, Limiter, Measure, Taken, level_after
from manent.domain.projections import CacheUnavailable

LEASE_S = 60
LEASE_US = LEASE_S * 1_000_000
RENEWAL_S = 15.0
BATCH_MAX = 256
CLOSE_S = 1.0
TAKE_SHA = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()

Command = Sequence[str | bytes | int]

_log = logging.getLogger("manent.limits")


class Link(Protocol):
    """The way to Redis. Both raise CacheUnavailable where it does not answer."""

    async def several(self, commands: Sequence[Command], *, timeout_s: float | None = None) -> list[Any]:
        """The answers to commands that are sent together; one that was refused is its error."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


@dataclass(slots=True)
class _Asked:
    command: Command
    answer: asyncio.Future[Any]


class SharedLimiter(Limiter):
    """Counts in Redis by its clock, or by ``now_us``. Belongs to one event loop; raises CacheUnavailable."""

    def __init__(self, link: Link, *, log_id: str, now_us: Callable[[], int] | None = None) -> None:
        self._link = link
        self._prefix = f"manent:{quote(log_id, safe='')}:limit:"
        self._now_us = now_us
        self._leases: dict[str, list[str]] = {}
        self._waiting: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None

    async def take(self, charges: Sequence[Charge], *, lease: str = "", enforced: bool = True) -> Taken:
        """See ``Limiter.take``."""
        allowed, *used = await self._ask(self._taking(charges, lease=lease, enforced=enforced))
        if allowed:
            held = [self._key(charge.limit) for charge in charges if charge.limit.measure is Measure.RUNNING]
            if held:
                self._leases[lease] = held
        found = zip(charges, used, strict=True)
        return Taken(
            bool(allowed), tuple(level_after(charge, float(raw), taken=bool(allowed)) for charge, raw in found)
        )

    async def settle(self, corrections: Sequence[Charge], *, lease: str) -> None:
        """See ``Limiter.settle``."""
        held = self._leases.pop(lease, [])
        asked = [self._taking(corrections, lease="", enforced=False)] if corrections else []
        await asyncio.gather(*(self._ask(command) for command in [*asked, *(("ZREM", key, lease) for key in held)]))

    async def keep_leases(self) -> None:
        """Renew the leases of this process again and again; runs as long as the server does."""
        while True:
            await asyncio.sleep(RENEWAL_S)
            try:
                await self.renew()
            except CacheUnavailable as error:
                _log.warning("leases of running completions are not renewed: %s", error.message)

    async def renew(self) -> None:
        """Say that what this process holds is still held; this also brings it back where Redis lost it."""
        held = [(key, lease) for lease, keys in self._leases.items() for key in keys]
        for start in range(0, len(held), BATCH_MAX):
            some = [(key, lease) for key, lease in held[start : start + BATCH_MAX] if lease in self._leases]
            if some:
                keys, leases = zip(*some, strict=True)
                await self._ask(("EVAL", RENEW, len(keys), *keys, self._time(), LEASE_US, *leases))

    async def aclose(self) -> None:
        """Close every connection."""
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=CLOSE_S)
            self._sending.cancel()
        await self._link.aclose()

    def _taking(self, charges: Sequence[Charge], *, lease: str, enforced: bool) -> Command:
        keys = [self._key(charge.limit) for charge in charges]
        each = [number for one in charges for number in (one.cost, one.limit.amount, one.limit.period_s)]
        return ("EVALSHA", TAKE_SHA, len(keys), *keys, self._time(), int(enforced), lease, LEASE_US, *each)

    def _key(self, limit: Limit) -> str:
        return f"{self._prefix}{limit.by}:{limit.measure}:{limit.period_s}:{quote(limit.name, safe='')}"

    def _time(self) -> int | str:
        return "" if self._now_us is None else self._now_us()

    async def _ask(self, command: Command) -> Any:
        """The answer to a command, which is sent together with all others that are asked meanwhile."""
        asked = _Asked(command, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all(), name="asking for limits")
        return await asked.answer

    async def _send_all(self) -> None:
        batch: list[_Asked] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                self._tell(batch, await self._sent([asked.command for asked in batch]))
        except CacheUnavailable as error:
            self._fail(batch, error)
        finally:
            self._sending = None
            self._fail(batch, CacheUnavailable("nobody asks Redis any more"))

    async def _sent(self, commands: Sequence[Command]) -> list[Any]:
        answers = await self._link.several(commands)
        unknown = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self._link.several([("SCRIPT", "LOAD", TAKE), *(commands[number] for number in unknown)])
            for number, answer in zip(unknown, again[1:], strict=True):
                answers[number] = answer
        return answers

    def _tell(self, batch: Sequence[_Asked], answers: Sequence[Any]) -> None:
        for asked, answer in zip(batch, answers, strict=True):
            if asked.answer.done():  # who asked does not wait any more
                continue
            if isinstance(answer, Exception):
                asked.answer.set_exception(CacheUnavailable(f"Redis: {answer}"))
            else:
                asked.answer.set_result(answer)

    def _fail(self, batch: Sequence[_Asked], error: CacheUnavailable) -> None:
        """Tell all who wait: Redis would not answer the next ones any sooner."""
        waiting, self._waiting = self._waiting, []
        for asked in [*batch, *waiting]:
            if not asked.answer.done():
                asked.answer.set_exception(CacheUnavailable(error.message))
