"""Payloads against the digests in their headers, and what they say of completions; a few megabytes at a time."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from manent.adapters.store.codec import JSON_ENCODING
from manent.adapters.store.rows import Rows
from manent.domain.transparency import CompletionMark, Finding, PayloadPage

BATCH_BYTES = 8 * 1024 * 1024
OPENING = "CompletionRequested"
CLOSING = ("CompletionGenerated", "CompletionFailed", "CompletionCancelled")
SALT_BYTES = 32

_SELECT = """
SELECT event_headers.position, type, tenant, stream_id, payload_digest, encoding, salt, payload
FROM event_headers LEFT JOIN event_payloads ON event_payloads.position = event_headers.position
"""
_SIZE = "SELECT sum(length(payload)) FROM event_payloads WHERE position >= ? AND position <= ?"
_SIZES = "SELECT position, length(payload) FROM event_payloads WHERE position >= ? AND position <= ? ORDER BY position"
_RANGE = _SELECT + "WHERE event_headers.position >= ? AND event_headers.position <= ? ORDER BY event_headers.position"
_TYPES = "', '".join((OPENING, *CLOSING))
_MARKS = (
    f"{_SELECT} WHERE tenant = ? AND stream_id = ? AND event_headers.position > ? AND event_headers.position <= ? "
    f"AND type IN ('{_TYPES}') ORDER BY event_headers.position LIMIT 100"
)


class _Named(msgspec.Struct):
    completion_id: str


class PayloadAudit:
    """The payload side of ``AuditedLog``."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._named = msgspec.json.Decoder(_Named)

    async def page(self, first: int, last: int) -> PayloadPage:
        """See ``AuditedLog.payloads``."""
        erased = 0
        marks: list[CompletionMark] = []
        finding: Finding | None = None
        async for begin, end in self._batches(first, last):
            for row in await self._rows.fetch(_RANGE, begin, end):
                problem = _problem(row)
                if problem is not None:
                    finding = finding or Finding(position=row[0], last_position=row[0], what=problem)
                erased += row[5] is None
                if row[1] == OPENING or row[1] in CLOSING:
                    marks.append(self._mark(row, legible=problem is None))
        return PayloadPage(erased=erased, marks=marks, finding=finding)

    async def marks_before(self, tenant: str, stream_id: str, position: int) -> Sequence[CompletionMark]:
        """See ``AuditedLog.marks_before``."""
        marks: list[CompletionMark] = []
        after = 0
        while found := await self._rows.fetch(_MARKS, tenant, stream_id, after, position):
            marks += [self._mark(row, legible=_problem(row) is None) for row in found]
            after = found[-1][0]
        return marks

    async def _batches(self, first: int, last: int) -> AsyncGenerator[tuple[int, int], None]:
        """Ranges whose payloads are at most 8 MiB together, or one."""
        ((size,),) = await self._rows.fetch(_SIZE, first, last)
        if (size or 0) <= BATCH_BYTES:
            yield first, last
            return
        begin, held = first, 0
        for position, size in await self._rows.fetch(_SIZES, first, last):
            if held and held + size > BATCH_BYTES:
                yield begin, position - 1
                begin, held = position, 0
            held += size
        yield begin, last

    def _mark(self, row: Sequence[Any], *, legible: bool) -> CompletionMark:
        completion_id = None
        if legible and row[7] is not None:
            try:
                completion_id = self._named.decode(row[7]).completion_id
            except msgspec.MsgspecError:
                completion_id = None
        return CompletionMark(
            position=row[0], tenant=row[2], stream_id=row[3], opens=row[1] == OPENING, completion_id=completion_id
        )


def _problem(row: Sequence[Any]) -> str | None:
    """What is wrong with the payload of a row; an erased one is not wrong."""
    _, _, _, _, digest, encoding, salt, payload = row
    if encoding is None and salt is None and payload is None:
        return None
    if encoding != JSON_ENCODING:
        return f"its payload is in an encoding {encoding!r} that this Manent does not know"
    if not isinstance(salt, bytes) or not isinstance(payload, bytes) or len(salt) != SALT_BYTES:
        return "its payload or salt is not as it was written"
    if hashlib.sha256(salt + payload).hexdigest() != digest:
        return "its payload does not match the digest in its header"
    return None
