"""All API keys, folded from their events and caught up with the log whenever they are asked for.

What another server did to a key holds here within ``FRESH_S`` and the time of one indexed read: a key is judged by a
table that is no older. While the database does not answer, the table stands for ``STALE_S_MAX``, and then no key
holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from math import inf
from time import monotonic

from manent.domain.access_events import KeyEvent, access_stream
from manent.domain.access_keys import KeyState, evolve_key
from manent.domain.errors import LogCorrupt, StoreUnavailable
from manent.domain.ports import EventStore
from manent.domain.records import EventFilter
from manent.domain.usecases.stream_records import stream_records

FRESH_S = 0.5
STALE_S_MAX = 10.0
MISS_S = 0.1
PAGE = 500
KEYS_CORRELATION = "access keys"
"""Under which events of keys are found, of all tenants. The blank keeps it apart from what clients may send."""

_log = logging.getLogger("manent.access")


class KeyTable:
    """The keys by their ids and by the digests of their secrets. Belongs to one event loop."""

    def __init__(self, store: EventStore, *, fresh_s: float = FRESH_S, stale_s_max: float = STALE_S_MAX) -> None:
        self._store = store
        self._fresh_s = fresh_s
        self._stale_s_max = stale_s_max
        self._by_id: dict[str, KeyState] = {}
        self._by_digest: dict[str, str] = {}
        self._position = 0
        self._read_at_s = -inf
        self._tried_at_s = -inf
        self._begun = 0
        self._failure: str | None = None
        self._reading = asyncio.Lock()

    async def find(self, digest: str) -> KeyState | None:
        """The key that has, or had last, the secret with this digest.

        Raises:
            StoreUnavailable: the database has not answered for too long.
        """
        await self._caught_up(self._fresh_s, stale_s_max=self._stale_s_max)
        if digest not in self._by_digest:  # it may be as new as that
            await self._caught_up(min(MISS_S, self._fresh_s), stale_s_max=self._stale_s_max)
        key_id = self._by_digest.get(digest)
        return None if key_id is None else self._by_id[key_id]

    async def of_id(self, key_id: str) -> KeyState | None:
        """The key with this id, as fresh as one that is judged by its secret.

        Raises:
            StoreUnavailable: the database has not answered for too long.
        """
        await self._caught_up(self._fresh_s, stale_s_max=self._stale_s_max)
        return self._by_id.get(key_id)

    async def any(self) -> bool:
        """Whether there ever was a key; without a word of the database, whether one is known."""
        if not self._by_id:
            await self._caught_up(self._fresh_s, stale_s_max=inf)
        return bool(self._by_id)

    async def get(self, key_id: str) -> KeyState | None:
        """The key with this id, as the log has it now."""
        await self._caught_up(0.0, stale_s_max=0.0)
        return self._by_id.get(key_id)

    async def all(self) -> list[KeyState]:
        """All keys in the order in which they were made, as the log has them now."""
        await self._caught_up(0.0, stale_s_max=0.0)
        return list(self._by_id.values())  # found in the order of the log, and kept in it

    async def _caught_up(self, fresh_s: float, *, stale_s_max: float) -> None:
        begun = self._begun
        if monotonic() - self._tried_at_s >= fresh_s:
            async with self._reading:
                if self._begun == begun:  # else somebody's read began after this one asked: what it found will do
                    self._begun += 1
                    await self._read_once()
        if self._failure is not None and monotonic() - self._read_at_s >= stale_s_max:
            raise StoreUnavailable(self._failure)

    async def _read_once(self) -> None:
        self._tried_at_s = begun_at_s = monotonic()
        try:
            await self._catch_up()
        except StoreUnavailable as error:
            self._failure = error.message
        else:
            self._failure, self._read_at_s = None, begun_at_s

    async def _catch_up(self) -> None:
        while True:
            wanted = EventFilter(correlation_id=KEYS_CORRELATION)
            page = await self._store.query(wanted, after_position=self._position, limit=PAGE)
            for tenant, stream_id in dict.fromkeys((entry.header.tenant, entry.header.stream_id) for entry in page):
                await self._read(tenant, stream_id)
            if page:
                self._position = page[-1].header.position
            if len(page) < PAGE:
                return

    async def _read(self, tenant: str, stream_id: str) -> None:
        state = await self._folded(tenant, stream_id)
        # A key stands in its own stream, and acts for the tenant of it: whatever an event says.
        if state is not None and stream_id == access_stream(state.key_id) and state.grant.tenant == tenant:
            self._keep(state)

    async def _folded(self, tenant: str, stream_id: str) -> KeyState | None:
        """The key of a stream; one whose history cannot be read to its end holds no more, for it may end so."""
        state: KeyState | None = None
        try:
            async for recorded in stream_records(self._store, tenant, stream_id):
                if not isinstance(recorded.event, KeyEvent):
                    self._forget(stream_id, f"event {recorded.header.position} is gone, or a later version's")
                    return None
                state = evolve_key(state, recorded.event)
        except LogCorrupt as error:
            self._forget(stream_id, error.message)
            return None
        return state

    def _forget(self, stream_id: str, why: str) -> None:
        _log.error("the key of %s does not hold any more: %s", stream_id, why)
        for key_id in [key_id for key_id in self._by_id if access_stream(key_id) == stream_id]:
            for digest in _digests(self._by_id[key_id]):
                self._by_digest.pop(digest, None)

    def _keep(self, state: KeyState) -> None:
        before = self._by_id.get(state.key_id)
        for digest in _digests(before):
            self._by_digest.pop(digest, None)
        self._by_id[state.key_id] = state
        for digest in _digests(state):
            self._by_digest[digest] = state.key_id


def _digests(state: KeyState | None) -> Iterable[str]:
    return () if state is None else (held.kept.digest for held in state.secrets)
