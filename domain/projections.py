"""Projections as the domain sees them: contexts that several servers share, and the log read session by session."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from manent.domain.errors import DomainError
from manent.domain.ports import ContextCache
from manent.domain.session import SessionState
from manent.domain.short_events import SessionStep

SessionKey = tuple[str, str]
"""Tenant and session id."""


class CacheUnavailable(DomainError):
    """The shared cache refuses or does not answer; what it would have told is in the log."""

    code = "cache_unavailable"


class ContextUnreadable(DomainError):
    """What is kept in a context's place is none: damaged, of another session, or of another type."""

    code = "context_unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSize:
    """What a shared cache holds of one epoch."""

    sessions: int
    memory_bytes: int


class SharedContexts(ContextCache, Protocol):
    """A context cache outside of this process. Every method raises CacheUnavailable where it does not answer.

    What it keeps belongs to an *epoch*, a namespace that is replaced as a whole.
    """

    async def versions(self, sessions: Sequence[SessionKey]) -> list[int | None]:
        """The version at which each session is kept; 0 where it is not, None where it is known to be too large."""
        ...

    async def peek(self, tenant: str, session_id: str) -> SessionState | None:
        """What ``get`` would tell, as it is and left as it is.

        Raises:
            ContextUnreadable: what is kept is no context of the session.
        """
        ...

    async def epoch(self) -> str:
        """The current epoch; the first one is made when nobody made one yet."""
        ...

    async def begin_epoch(self) -> str:
        """A new epoch, empty, that nobody reads yet."""
        ...

    async def fill(self, epoch: str, states: Sequence[SessionState]) -> None:
        """Keep ``states`` in ``epoch``, which is not current yet, all in one round trip."""
        ...

    async def switch(self, epoch: str) -> None:
        """Have everybody read and write ``epoch`` from now on; what the one before holds expires by itself."""
        ...

    def kept(self, epoch: str) -> AsyncGenerator[SessionKey, None]:
        """The sessions that ``epoch`` holds, each at least once."""
        ...

    async def size(self, epoch: str) -> CacheSize:
        """How much ``epoch`` holds; looks at every key."""
        ...


class SessionSteps(NamedTuple):
    """Events of one session that follow each other, and the version and id of the last of them."""

    session: SessionKey
    events: Sequence[SessionStep]
    last_version: int
    last_event_id: str


class SessionWalk(Protocol):
    """The log in the order of its sessions, for whoever folds them all. Raises StoreUnavailable and LogCorrupt."""

    def pages(self) -> AsyncGenerator[Iterable[SessionSteps], None]:
        """All events of all sessions, in memory that is bounded; a session goes on where the page before left it.

        A page is gone through once: its events are decoded as they are asked for.
        """
        ...

    async def events(self) -> int:
        """How many events the log has, of sessions and others."""
        ...
