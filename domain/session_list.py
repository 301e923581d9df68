"""Finding sessions: what a list of them shows, what it can be narrowed by, and who knows (the ``SessionDirectory``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from manent.domain.replay_events import Fork
from manent.domain.session import SessionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Which sessions of a tenant; every given field must match. ``since_us`` is inclusive, ``before_us`` exclusive."""

    tenant: str
    status: SessionStatus = SessionStatus.OPEN
    owner: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    since_us: int | None = None
    before_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSession:
    """A session as lists show it, without its conversation; ``position`` is that of its first event.

    ``changed_at_us`` is when its last event was recorded, ``version`` that event's number, ``expired_at_us`` when
    it expired if it did.
    """

    position: int
    session_id: str
    tenant: str
    owner: str
    status: SessionStatus
    metadata: Mapping[str, str]
    ttl_s: int | None
    parent: Fork | None
    version: int
    started_at_us: int
    changed_at_us: int
    expired_at_us: int | None

    @property
    def expires_at_us(self) -> int | None:
        """When it expires unless something happens in it before, or did expire; None is never."""
        if self.status is not SessionStatus.OPEN or self.ttl_s is None:
            return self.expired_at_us
        return self.changed_at_us + self.ttl_s * 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DueSession:
    """A session that may have to expire: something of it was last recorded at ``changed_at_us``.

    ``due_at_us`` and ``position`` are its place in the order of due sessions.
    """

    tenant: str
    session_id: str
    position: int
    due_at_us: int
    ttl_s: int
    changed_at_us: int


class SessionDirectory(Protocol):
    """The sessions by what they are found by: a projection of the log, which the log's own commits keep.

    Every method raises StoreUnavailable where the database refuses or does not answer.
    """

    async def page(
        self, wanted: SessionFilter, *, after_position: int | None, limit: int, descending: bool
    ) -> list[ListedSession]:
        """At most ``limit`` sessions in the order of their first events, or against it, behind ``after_position``."""
        ...

    async def find(self, tenant: str, session_id: str) -> ListedSession | None:
        """The session, whatever its status; None where nothing was started."""
        ...

    async def due(self, now_us: int, *, after: DueSession | None, limit: int) -> list[DueSession]:
        """At most ``limit`` open sessions of all tenants that may expire at ``now_us`` or before, earliest first.

        May, since using a session does not change its place here: ``changed_at_us`` tells whether it was used.
        """
        ...

    async def postpone(self, sessions: Sequence[tuple[DueSession, int]]) -> None:
        """Look at each session again at the time beside it and not before.

        A session whose place changed meanwhile, or that somebody else works on, is left as it is.
        """
        ...
