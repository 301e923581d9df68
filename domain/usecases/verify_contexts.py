"""Verifying the shared contexts: each one beside the fold of the log that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from manent.domain.projections import ContextUnreadable, SharedContexts
from manent.domain.session import SessionState
from manent.domain.usecases.sessions import Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A context that is not what the log says."""

    tenant: str
    session_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextsVerified:
    """How many contexts were compared, how many were wrong, and the first of those."""

    epoch: str
    sessions: int
    wrong: int
    first: Difference | None


class VerifyContexts:
    """Compares; changes nothing. A context that is only old is right."""

    def __init__(self, sessions: Sessions, shared: SharedContexts) -> None:
        self._sessions = sessions
        self._shared = shared

    async def run(self, progress: Callable[[int], None]) -> ContextsVerified:
        """Compare every context of the current epoch; ``progress`` is told of each.

        Raises:
            CacheUnavailable, StoreUnavailable, LogCorrupt: it could not be done.
        """
        epoch = await self._shared.epoch()
        sessions = wrong = 0
        first: Difference | None = None
        async for tenant, session_id in self._shared.kept(epoch):
            reason = await self._wrong(tenant, session_id)
            sessions += 1
            progress(1)
            if reason is not None:
                wrong += 1
                first = first or Difference(tenant=tenant, session_id=session_id, reason=reason)
        return ContextsVerified(epoch=epoch, sessions=sessions, wrong=wrong, first=first)

    async def _wrong(self, tenant: str, session_id: str) -> str | None:
        try:
            kept = await self._shared.peek(tenant, session_id)
        except ContextUnreadable as error:
            return error.message
        if kept is None:  # it expired meanwhile, or is known to be too large
            return None
        return difference(kept, await self._sessions.load_at(tenant, session_id, kept.version))


def difference(kept: SessionState, folded: SessionState) -> str | None:
    """In what the first departs from the second, or None."""
    if folded.version != kept.version:
        return f"it is at version {kept.version}, and the log has {folded.version} events of the session"
    if kept.last_event_id != folded.last_event_id:
        return f"it ends with event {kept.last_event_id!r}, and the log has {folded.last_event_id!r} there"
    if kept == folded:
        return None
    for number, (one, other) in enumerate(zip(kept.messages, folded.messages, strict=False)):
        if one != other:
            return f"message {number} is not the one in the log"
    if len(kept.messages) != len(folded.messages):
        return f"it has {len(kept.messages)} messages, and the log {len(folded.messages)}"
    names = (member.name for member in fields(SessionState))
    return next(f"its {name} is not the log's" for name in names if getattr(kept, name) != getattr(folded, name))
