"""The log's rows for verification: header bytes made in bulk, payloads against digests, order and streams by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from manent.adapters.store.codec import header_bytes
from manent.adapters.store.frontier import HEADER_FIELDS
from manent.adapters.store.payload_audit import PayloadAudit
from manent.adapters.store.rows import RowError, Rows
from manent.domain.errors import LogCorrupt
from manent.domain.merkle import STORED_LEVEL_STEP
from manent.domain.records import EventHeader
from manent.domain.transparency import CompletionMark, Finding, HeaderPage, PayloadPage, StoredHead

LEVEL_MAX = 56
_NUMBERS = frozenset({"position", "recorded_at_us", "schema_version", "stream_version"})
_OPTIONAL = frozenset({"causation_id", "correlation_id", "request_id"})

_RANGE = "FROM event_headers WHERE position >= ? AND position <= ? ORDER BY position"
_COLUMNS = f"SELECT {', '.join(HEADER_FIELDS)} {_RANGE}"
# The databases write the canonical bytes themselves, as long as no string needs an escape, and a page as one value: a
# line for each header, since a new line in a string would be an escape. Columns one by one take twice as long.
_PAIRS = ", ".join("'" + name + "', " + name for name in HEADER_FIELDS)
_HEADERS = {
    "sqlite": (
        f"SELECT CAST(group_concat(json_object({_PAIRS}), char(10)) AS BLOB) "  # noqa: S608 (our own names)
        "FROM event_headers NOT INDEXED WHERE position >= ? AND position <= ?"
    ),
    "postgresql": (
        "SELECT convert_to(string_agg(row_to_json(header)::text, chr(10)), 'UTF8') "  # noqa: S608 (our own names)
        f"FROM (SELECT {', '.join(HEADER_FIELDS)} FROM event_headers "
        "WHERE position >= ? AND position <= ? ORDER BY position) AS header"
    ),
}
_DISORDER = """
SELECT event_headers.position, event_headers.log_id FROM event_headers
LEFT JOIN event_headers AS before ON before.position = event_headers.position - 1
WHERE event_headers.position >= ? AND event_headers.position <= ?
  AND (event_headers.log_id <> ? OR event_headers.recorded_at_us < before.recorded_at_us)
ORDER BY event_headers.position LIMIT 1
"""
# Each version has the one before it at a lower position; so a stream of as many events as its last version says has
# each version once.
_STREAM_GAP = """
SELECT min(position) FROM event_headers AS one WHERE position > ? AND position <= ? AND stream_version <> 1
  AND NOT EXISTS (SELECT 1 FROM event_headers AS before WHERE before.tenant = one.tenant
    AND before.stream_id = one.stream_id AND before.stream_version = one.stream_version - 1
    AND before.position < one.position)
"""
_STREAM_TWICE = """
SELECT tenant, stream_id FROM event_headers GROUP BY tenant, stream_id HAVING count(*) > max(stream_version) LIMIT 1
"""
_LAST_OF_VERSION = """
SELECT max(position) FROM event_headers WHERE tenant = ? AND stream_id = ?
GROUP BY stream_version HAVING count(*) > 1 ORDER BY 1 LIMIT 1
"""
_NAME = "SELECT stream_id, stream_version FROM event_headers WHERE position = ?"
# The head is read in the same statement: the log may grow while it is verified.
_HEAD = "(SELECT position FROM log_head WHERE id = 1)"
_STRAY_HEADER = """
SELECT log_head.position, log_head.recorded_at_us, (SELECT max(position) FROM event_headers),
  coalesce((SELECT recorded_at_us FROM event_headers WHERE event_headers.position = log_head.position), 0)
FROM log_head WHERE id = 1
"""
_STRAY_NODE = f"""
SELECT level, node, {_HEAD} FROM tree_nodes
WHERE level < {STORED_LEVEL_STEP} OR level > {LEVEL_MAX} OR level % {STORED_LEVEL_STEP} <> 0
  OR node < 0 OR node >= {_HEAD} >> level ORDER BY level, node LIMIT 1
"""  # noqa: S608 (numbers of our own)
_STRAY_PAYLOAD = f"""
SELECT position FROM event_payloads AS payload
WHERE (position > {_HEAD} OR position <= ?) AND NOT EXISTS
  (SELECT 1 FROM event_headers WHERE event_headers.position = payload.position) ORDER BY position LIMIT 1
"""  # noqa: S608 (nothing but our own text)


class SQLLogAudit:
    """Implements ``AuditedLog`` on a database."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._payloads = PayloadAudit(rows)

    async def head(self) -> StoredHead:
        """See ``AuditedLog.head``."""
        found = await self._rows.fetch("SELECT id, log_id, position, frontier, root FROM log_head ORDER BY id")
        if [row[0] for row in found] != [1]:
            raise LogCorrupt(f"the log has {len(found)} heads, not the one that it should have")
        _, log_id, size, frontier, root = found[0]
        if not isinstance(log_id, str) or not _is_text(log_id):
            raise LogCorrupt("the log's identity in its head is no text")
        if not isinstance(size, int) or size < 0 or not isinstance(frontier, bytes) or not isinstance(root, bytes):
            raise LogCorrupt("the log's head holds values of the wrong kind")
        return StoredHead(log_id=log_id, size=size, frontier=frontier, root=root)

    async def headers(self, first: int, last: int) -> HeaderPage:
        """See ``AuditedLog.headers``."""
        try:
            ((page,),) = await self._rows.fetch(_HEADERS[self._rows.dialect], first, last)
        except RowError:
            return await self._plain_headers(first, last)
        headers = (page or b"").split(b"\n")
        # An escape in a string has more than one writing; those pages, and those with a hole, are read by columns.
        if len(headers) != last - first + 1 or b"\\" in page:
            return await self._plain_headers(first, last)
        return HeaderPage(headers=headers)

    async def nodes(self, level: int, first: int, last: int) -> Mapping[int, bytes]:
        """See ``AuditedLog.nodes``."""
        statement = "SELECT node, hash FROM tree_nodes WHERE level = ? AND node >= ? AND node <= ?"
        return dict(await self._rows.fetch(statement, level, first, last))  # type: ignore[arg-type]  # rows of two

    async def payloads(self, first: int, last: int) -> PayloadPage:
        """See ``AuditedLog.payloads``."""
        return await self._payloads.page(first, last)

    async def marks_before(self, tenant: str, stream_id: str, position: int) -> Sequence[CompletionMark]:
        """See ``AuditedLog.marks_before``."""
        return await self._payloads.marks_before(tenant, stream_id, position)

    async def disorder(self, first: int, last: int, log_id: str) -> Finding | None:
        """See ``AuditedLog.disorder``."""
        for position, found_id in await self._rows.fetch(_DISORDER, first, last, log_id):
            what = "it was recorded before the event in front of it" if found_id == log_id else "it is of another log"
            return _at(position, what)
        return None

    async def stream_gap(self, after: int, last: int) -> Finding | None:
        """See ``AuditedLog.stream_gap``."""
        ((gap,),) = await self._rows.fetch(_STREAM_GAP, after, last)
        if gap is not None:
            ((stream_id, version),) = await self._rows.fetch(_NAME, gap)
            return _at(
                gap, f"it is version {version} of stream {stream_id!r}, and no version {version - 1} precedes it"
            )
        for tenant, stream_id in await self._rows.fetch(_STREAM_TWICE):
            for (position,) in await self._rows.fetch(_LAST_OF_VERSION, tenant, stream_id):
                return _at(position, f"its version of stream {stream_id!r} was recorded before")
        return None

    async def stray(self, size: int, *, payloads: bool) -> Finding | None:
        """See ``AuditedLog.stray``."""
        for head, recorded_at_us, last, last_recorded_at_us in await self._rows.fetch(_STRAY_HEADER):
            if last is not None and last > head:
                return _at(head + 1, f"the log goes on to {last}, but its head says {head}")
            if recorded_at_us != last_recorded_at_us:
                return _at(max(head, 1), "the head's time is not that of the last event")
        for level, node, head in await self._rows.fetch(_STRAY_NODE):
            return _at(max(head, 1), f"the tree has a node {node} at level {level}, which a log of {head} has not")
        for (position,) in await self._rows.fetch(_STRAY_PAYLOAD, size) if payloads else ():
            return _at(max(position, 1), f"there is a payload at position {position}, but no event")
        return None

    async def _plain_headers(self, first: int, last: int) -> HeaderPage:
        """Column by column, every type checked: where something is wrong with one, it is named."""
        entries: list[bytes] = []
        finding: Finding | None = None
        for row in await self._rows.fetch(_COLUMNS, first, last):
            header = EventHeader(**dict(zip(HEADER_FIELDS, row, strict=True)))
            if header.position != first + len(entries):
                break
            try:
                _check_kinds(header)
                entry = header_bytes(header)
            except (ValueError, msgspec.MsgspecError) as error:
                finding = finding or _at(header.position, str(error))
                entry = b""
            entries.append(entry)
        return HeaderPage(headers=entries, finding=finding)


def _check_kinds(header: EventHeader) -> None:
    for name in HEADER_FIELDS:
        value = getattr(header, name)
        wanted: type = int if name in _NUMBERS else str
        if type(value) is not wanted and not (value is None and name in _OPTIONAL):
            raise ValueError(f"its {name} is of the wrong kind")
        if isinstance(value, str) and not _is_text(value):
            raise ValueError(f"its {name} is not UTF-8")


def _is_text(value: str) -> bool:
    """Whether a text was UTF-8 in the database: stray bytes come as surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _at(position: int, what: str) -> Finding:
    return Finding(position=position, last_position=position, what=what)
