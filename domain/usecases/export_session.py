"""A conversation to take away: its state, and the events that it is made of, its ancestors' included."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from manent.domain.access import Principal
from manent.domain.events import session_stream
from manent.domain.ports import EventStore
from manent.domain.records import EventFilter, LogEntry
from manent.domain.session import SessionState
from manent.domain.usecases.lineage import Segment, lineage
from manent.domain.usecases.replay import NOW, AsOf, Replay

PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExport:
    """A session at a moment, and the segments of streams that add up to it, the oldest ancestor's first."""

    state: SessionState
    segments: Sequence[Segment]


class ExportSession:
    """Reads what whoever may replay a session may take away."""

    def __init__(self, *, store: EventStore, replay: Replay) -> None:
        self._store = store
        self._replay = replay

    async def open(self, principal: Principal, session_id: str, moment: AsOf = NOW) -> SessionExport:
        """What is to be exported; raises as ``Replay.at``."""
        state = await self._replay.at(principal, session_id, moment)
        segments = await lineage(self._store, state.tenant, state.session_id, state.version)
        return SessionExport(state=state, segments=segments)

    async def events(self, export: SessionExport) -> AsyncGenerator[Sequence[LogEntry], None]:
        """The events, page by page in the order of their positions; nothing is held between two pages."""
        for segment in export.segments:
            stream = EventFilter(tenant=export.state.tenant, stream_id=session_stream(segment.session_id))
            after = 0
            while True:
                entries = await self._store.query(stream, after_position=after, limit=PAGE)
                belonging = [entry for entry in entries if entry.header.stream_version <= segment.version]
                if belonging:
                    yield belonging
                if len(belonging) < PAGE:
                    break
                after = entries[-1].header.position
