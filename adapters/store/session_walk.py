"""The log in the order of its sessions, from the driver's rows: what a rebuild of projections folds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from manent.adapters.store.codec import decode_step
from manent.adapters.store.rows import Rows
from manent.domain.errors import LogCorrupt
from manent.domain.events import SESSION_STREAMS, session_of
from manent.domain.projections import SessionSteps

PAGE_EVENTS = 4096
PAGE_BYTES = 4 * 1024 * 1024

_PAGE = (
    "SELECT h.tenant, h.stream_id, h.stream_version, h.event_id, h.type, h.schema_version, h.position, p.payload "
    "FROM event_headers AS h LEFT JOIN event_payloads AS p ON p.position = h.position "
    "WHERE (h.tenant, h.stream_id, h.stream_version) > (?, ?, CAST(? AS INTEGER)) AND h.stream_id LIKE ? "
    "ORDER BY h.tenant, h.stream_id, h.stream_version LIMIT CAST(? AS INTEGER)"
)


class SQLSessionWalk:
    """Implements ``SessionWalk`` on a database, along the index of its streams."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def pages(self) -> AsyncGenerator[Iterable[SessionSteps], None]:
        """See ``SessionWalk.pages``; the next page is read while this one is worked on."""
        reading = self._read(("", "", 0))
        try:
            while rows := await reading:
                reading = self._read(rows[-1][:3])
                yield (_steps(stream, list(found)) for stream, found in groupby(rows, key=itemgetter(0, 1)))
        finally:
            reading.cancel()

    def _read(self, place: Sequence[Any]) -> asyncio.Task[Sequence[Sequence[Any]]]:
        return asyncio.create_task(
            self._rows.fetch_within(PAGE_BYTES, _PAGE, *place, f"{SESSION_STREAMS}%", PAGE_EVENTS)
        )

    async def events(self) -> int:
        """See ``SessionWalk.events``."""
        for (position,) in await self._rows.fetch("SELECT position FROM log_head WHERE id = 1"):
            return int(position)
        raise LogCorrupt("the log has no head; `manent log verify` says more")


def _steps(stream: tuple[str, str], rows: list[Sequence[Any]]) -> SessionSteps:
    tenant, stream_id = stream
    events = []
    for _, _, _, _, type_name, schema_version, position, payload in rows:
        try:
            events.append(decode_step(type_name, schema_version, payload))
        except LogCorrupt as error:
            raise LogCorrupt(f"at position {position}, {error.message}") from error
    return SessionSteps((tenant, session_of(stream_id)), events, rows[-1][2], rows[-1][3])
