"""The look-up tables of sessions, written in the transaction of their events: by owner, by metadata, by expiry.

A projection like any other: it holds nothing that the log does not say, and ``session_rebuild`` makes it again. Rows
are in the order of the sessions' first events. ``expires_at_us`` is the earliest time at which a session can expire, as
far as its own events tell: using the session moves its end without a write here, so whoever expires sessions looks at
the log again.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from manent.domain.events import DomainEvent, SessionDeleted, SessionExpired, SessionMetadataChanged, SessionStarted
from manent.domain.session import SessionStatus

Statement = tuple[str, list[tuple[Any, ...]]]
"""SQL with ``?`` for its values, and the rows to execute it with."""
Change = tuple[str, tuple[Any, ...]]
"""SQL with ``?`` for its values, and one row of them."""

_START = (
    "INSERT INTO sessions (tenant, session_id, position, owner, status, ttl_s, expires_at_us) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, session_id) DO NOTHING"
)
_END = "UPDATE sessions SET status = ?, expires_at_us = NULL WHERE tenant = ? AND session_id = ?"
_END_METADATA = "UPDATE session_metadata SET status = ? WHERE tenant = ? AND session_id = ?"
_CHANGE = "UPDATE sessions SET ttl_s = ?, expires_at_us = ? WHERE tenant = ? AND session_id = ?"
_FORGET_METADATA = "DELETE FROM session_metadata WHERE tenant = ? AND session_id = ?"
_ADD_METADATA = (
    "INSERT INTO session_metadata (tenant, session_id, key, value, pair, status, owner, position) "
    "SELECT tenant, session_id, ?, ?, CAST(? AS BIGINT), status, owner, position FROM sessions "
    "WHERE tenant = ? AND session_id = ? ON CONFLICT DO NOTHING"
)
_ORDER = (_START, _END, _END_METADATA, _CHANGE, _FORGET_METADATA, _ADD_METADATA)

IndexedEvent = SessionStarted | SessionMetadataChanged | SessionExpired | SessionDeleted
"""The events that change the tables."""

INDEXED_TYPES = ("SessionStarted", "SessionMetadataChanged", "SessionExpired", "SessionDeleted")
"""Their names in the log."""


class Placed(NamedTuple):
    """What the tables have of an event's header: a whole one takes longer to make than all else that is done here."""

    tenant: str
    position: int
    actor: str
    stream_version: int


def index_statements(events: Iterable[tuple[Placed, DomainEvent]]) -> list[Statement]:
    """What ``events`` change in the tables; nothing for most of them.

    The order among sessions does not matter, so that all their first changes are made at once, then their second.
    """
    return grouped(
        (
            (place, _changes(place, placed.position, event))
            for placed, event in events
            if isinstance(event, IndexedEvent) and (place := (placed.tenant, event.session_id))
        ),
        _ORDER,
    )


def grouped(changes: Iterable[tuple[tuple[str, str], Iterable[Change]]], order: Sequence[str]) -> list[Statement]:
    """The statements of ``changes``, which are those of an event each and of the place that it is about.

    All places' first changes come first, then their second; each of them in ``order``.
    """
    rows: defaultdict[tuple[int, int], list[tuple[Any, ...]]] = defaultdict(list)
    numbers: Counter[tuple[str, str]] = Counter()
    for place, statements in changes:
        numbers[place] += 1
        for statement, values in statements:
            rows[numbers[place], order.index(statement)].append(values)
    return [(order[kind], rows[number, kind]) for number, kind in sorted(rows)]


def pair_digest(key: str, value: str) -> int:
    """What stands for a pair of metadata in an index: 63 bits of SHA-256; whoever looks a pair up compares it too."""
    digest = hashlib.sha256(f"{len(key)} {key}{value}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _changes(place: tuple[str, str], position: int, event: IndexedEvent) -> Iterator[Change]:
    """In the order of ``_ORDER``."""
    match event:
        case SessionStarted():
            expires_at_us = _expiry(event.started_at_us, event.ttl_s)
            yield _START, (*place, position, event.owner, SessionStatus.OPEN.value, event.ttl_s, expires_at_us)
            yield from _metadata(place, event.metadata)
        case SessionMetadataChanged():
            yield _CHANGE, (event.ttl_s, _expiry(event.changed_at_us, event.ttl_s), *place)
            yield _FORGET_METADATA, place
            yield from _metadata(place, event.metadata)
        case SessionExpired() | SessionDeleted():
            status = SessionStatus.EXPIRED if isinstance(event, SessionExpired) else SessionStatus.DELETED
            yield _END, (status.value, *place)
            yield _END_METADATA, (status.value, *place)


def _metadata(place: tuple[str, str], metadata: dict[str, str]) -> Iterator[Change]:
    for key, value in metadata.items():
        yield _ADD_METADATA, (key, value, pair_digest(key, value), *place)


def _expiry(used_at_us: int, ttl_s: int | None) -> int | None:
    return None if ttl_s is None else used_at_us + ttl_s * 1_000_000
