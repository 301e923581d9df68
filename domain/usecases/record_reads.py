"""Writing down who reads what of others: one event for each thing that one request reads, before it is answered."""

from __future__ import annotations

from manent.domain.access import Principal
from manent.domain.access_events import AuditRead, access_stream
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.records import EventContext

NOTES_MAX = 64


class RecordedVisit:
    """A request whose readings are recorded; see ``Visit``."""

    def __init__(
        self,
        *,
        store: EventStore,
        clock: Clock,
        ids: Ids,
        request_id: str | None,
        correlation_id: str | None,
        purpose: str | None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._request_id = request_id
        self._correlation_id = correlation_id
        self._purpose = purpose
        self._noted: set[str] = set()

    async def note(self, reader: Principal, *, resource: str, owner: str | None, count: int = 1) -> None:
        """See ``Visit.note``."""
        if resource in self._noted:
            return
        read_id = self._ids.new("read_")
        event = AuditRead(
            read_id=read_id,
            reader=reader.subject,
            credential_id=reader.credential_id,
            resource=resource,
            owner=owner,
            count=count,
            purpose=self._purpose,
            read_at_us=self._clock.now_us(),
        )
        context = EventContext(
            tenant=reader.tenant,
            actor=reader.subject,
            request_id=self._request_id,
            correlation_id=self._correlation_id,
        )
        await self._store.append(access_stream(read_id), [event], expected_version=0, context=context)
        if len(self._noted) < NOTES_MAX:
            self._noted.add(resource)
