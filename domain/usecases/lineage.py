"""The past that forks share: a fork's log begins where its parent's stands, and copies nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manent.domain.errors import LogCorrupt
from manent.domain.events import SessionStarted, session_stream
from manent.domain.ports import ContextCache, EventStore
from manent.domain.replay_events import Fork
from manent.domain.session import SessionState
from manent.domain.short_events import SessionStep

FORK_DEPTH_MAX = 64
"""How many forks may stand between a session and the one that was started without a parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The events of one session's stream that belong to a conversation: 1 to ``version``."""

    session_id: str
    version: int


def parent_of(first: SessionStep) -> Fork | None:
    """Where the session whose stream begins with ``first`` branched off."""
    return first.parent if isinstance(first, SessionStarted) else None


async def lineage(store: EventStore, tenant: str, session_id: str, version: int) -> list[Segment]:
    """The segments that a session at ``version`` is made of, its oldest ancestor's first.

    Raises:
        LogCorrupt: there are more than forks can have.
    """
    segments: list[Segment] = []
    fork: Fork | None = Fork(session_id=session_id, version=version)
    while fork is not None:
        _check_depth(len(segments), session_id)
        segments.append(Segment(session_id=fork.session_id, version=fork.version))
        fork = await _parent(store, tenant, fork.session_id)
    return segments[::-1]


async def ancestors(
    store: EventStore, cache: ContextCache, tenant: str, fork: Fork
) -> Sequence[tuple[SessionState, int]]:
    """What to fold for the past of a fork, oldest first: a state to go on from, and the version to stop at.

    A state of version 0 is a stream's beginning. The walk ends where the cache knows a session early enough.
    """
    found: list[tuple[SessionState, int]] = []
    above: Fork | None = fork
    while above is not None:
        _check_depth(len(found), fork.session_id)
        cached = await cache.get(tenant, above.session_id)
        if cached is not None and 1 <= cached.version <= above.version:
            found.append((cached, above.version))
            break
        found.append((SessionState(session_id=above.session_id, tenant=tenant), above.version))
        above = await _parent(store, tenant, above.session_id)
    return found[::-1]


async def _parent(store: EventStore, tenant: str, session_id: str) -> Fork | None:
    first = await store.read_stream(tenant, session_stream(session_id), limit=1)
    return parent_of(first[0].event) if first else None


def _check_depth(depth: int, session_id: str) -> None:
    if depth > FORK_DEPTH_MAX:
        raise LogCorrupt(f"session {session_id!r} stands on more than {FORK_DEPTH_MAX} forks, which no server records")
