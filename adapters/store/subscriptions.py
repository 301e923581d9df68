"""Subscriptions in a database (SQLite or PostgreSQL, through SQLAlchemy Core) and in memory.

Each operation is one conditional UPDATE, so that the database decides who holds a lease, whatever the isolation
level. Times are the worker's own clock: nodes whose clocks differ may take a lease over early or late by as much, and
the token still keeps the stale one out.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import ColumnElement, Row, Update, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from manent.adapters.store.schema import subscriptions
from manent.domain.errors import InvalidValue, LeaseLost, StoreUnavailable
from manent.domain.ports import Clock
from manent.domain.subscriptions import HeldBy, Lease

_COLUMNS = subscriptions.c
_ENDS_S = 15.0

P = ParamSpec("P")
T = TypeVar("T")


def whole(operation: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """``operation``, whose transaction ends also where its caller is cancelled, and before the caller goes on.

    A transaction that is left in the middle keeps SQLite's write lock until its connection is collected as garbage.
    """

    @functools.wraps(operation)
    async def to_its_end(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.create_task(operation(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=_ENDS_S)
            if task.done() and not task.cancelled():
                task.exception()  # its caller is gone
            raise

    return to_its_end


class SQLSubscriptionStore:
    """Implements ``SubscriptionStore`` on the table ``subscriptions``; the engine is the caller's to dispose of."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert

    @whole
    async def acquire(self, name: str, *, owner: str, ttl_s: float) -> Lease | HeldBy:
        """See ``SubscriptionStore.acquire``."""
        now_us = self._clock.now_us()
        new = self._insert(subscriptions).values(name=name, position=0, owner=None, token=0, expires_at_us=0)
        take = (
            update(subscriptions)
            .where(_COLUMNS.name == name, or_(_COLUMNS.owner.is_(None), _COLUMNS.expires_at_us <= now_us))
            .values(owner=owner, token=_COLUMNS.token + 1, expires_at_us=_end_us(now_us, ttl_s))
        )
        async with self._writing() as connection:
            await connection.execute(new.on_conflict_do_nothing())
            taken = await _one(connection, take)
            if taken is not None:
                return _lease(taken, ttl_s)
            held = (await connection.execute(select(subscriptions).where(_COLUMNS.name == name))).one()
            return HeldBy(owner=held.owner or "", expires_at_us=held.expires_at_us)

    @whole
    async def renew(self, lease: Lease) -> Lease:
        """See ``SubscriptionStore.renew``."""
        return await self._write(lease, _held(lease))

    @whole
    async def advance(self, lease: Lease, position: int) -> Lease:
        """See ``SubscriptionStore.advance``."""
        forward = _held(lease).where(_COLUMNS.position <= position).values(position=position)
        return await self._write(lease, forward, position)

    @whole
    async def release(self, lease: Lease) -> None:
        """See ``SubscriptionStore.release``."""
        async with self._writing() as connection:
            await connection.execute(_held(lease).values(owner=None, expires_at_us=0))

    @whole
    async def forget(self, lease: Lease) -> None:
        """See ``SubscriptionStore.forget``."""
        async with self._writing() as connection:
            await connection.execute(delete(subscriptions).where(*is_held(lease)))

    @whole
    async def position(self, name: str) -> int:
        """See ``SubscriptionStore.position``."""
        async with self._writing() as connection:
            found = (await connection.execute(select(_COLUMNS.position).where(_COLUMNS.name == name))).scalar()
        return found or 0

    @whole
    async def names(self, prefix: str) -> Sequence[str]:
        """See ``SubscriptionStore.names``."""
        wanted = select(_COLUMNS.name).where(_COLUMNS.name.startswith(prefix, autoescape=True)).order_by(_COLUMNS.name)
        async with self._writing() as connection:
            return list((await connection.execute(wanted)).scalars())

    async def _write(self, lease: Lease, statement: Update, position: int | None = None) -> Lease:
        statement = statement.values(expires_at_us=_end_us(self._clock.now_us(), lease.ttl_s))
        async with self._writing() as connection:
            written = await _one(connection, statement)
            if written is not None:
                return _lease(written, lease.ttl_s)
            found = (await connection.execute(select(subscriptions).where(_COLUMNS.name == lease.name))).first()
        if found is None or (found.owner, found.token) != (lease.owner, lease.token):
            raise _lost(lease, None if found is None else found.owner)
        raise _backwards(lease, found.position, position)

    @asynccontextmanager
    async def _writing(self) -> AsyncGenerator[AsyncConnection, None]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise StoreUnavailable(f"the database refused: {error.orig}") from error
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(f"the database did not answer: {error}") from error


@dataclass(slots=True)
class _Kept:
    position: int = 0
    owner: str | None = None
    token: int = 0
    expires_at_us: int = 0


class MemorySubscriptionStore:
    """Implements ``SubscriptionStore`` in a dictionary: the contract's plainest reading, for tests."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def acquire(self, name: str, *, owner: str, ttl_s: float) -> Lease | HeldBy:
        """See ``SubscriptionStore.acquire``."""
        kept, now_us = self._kept.setdefault(name, _Kept()), self._clock.now_us()
        if kept.owner is not None and kept.expires_at_us > now_us:
            return HeldBy(owner=kept.owner, expires_at_us=kept.expires_at_us)
        kept.owner, kept.token, kept.expires_at_us = owner, kept.token + 1, _end_us(now_us, ttl_s)
        return Lease(
            name=name,
            owner=owner,
            token=kept.token,
            position=kept.position,
            ttl_s=ttl_s,
            expires_at_us=kept.expires_at_us,
        )

    async def renew(self, lease: Lease) -> Lease:
        """See ``SubscriptionStore.renew``."""
        kept = self._held(lease)
        kept.expires_at_us = _end_us(self._clock.now_us(), lease.ttl_s)
        return replace(lease, position=kept.position, expires_at_us=kept.expires_at_us)

    async def advance(self, lease: Lease, position: int) -> Lease:
        """See ``SubscriptionStore.advance``."""
        kept = self._held(lease)
        if kept.position > position:
            raise _backwards(lease, kept.position, position)
        kept.position = position
        return await self.renew(lease)

    async def release(self, lease: Lease) -> None:
        """See ``SubscriptionStore.release``."""
        kept = self._kept.get(lease.name)
        if kept is not None and (kept.owner, kept.token) == (lease.owner, lease.token):
            kept.owner, kept.expires_at_us = None, 0

    async def forget(self, lease: Lease) -> None:
        """See ``SubscriptionStore.forget``."""
        if self.holds(lease):
            del self._kept[lease.name]

    async def position(self, name: str) -> int:
        """See ``SubscriptionStore.position``."""
        return self._kept[name].position if name in self._kept else 0

    async def names(self, prefix: str) -> Sequence[str]:
        """See ``SubscriptionStore.names``."""
        return sorted(name for name in self._kept if name.startswith(prefix))

    def holds(self, lease: Lease) -> bool:
        """Whether ``lease`` is the one that is held."""
        kept = self._kept.get(lease.name)
        return kept is not None and (kept.owner, kept.token) == (lease.owner, lease.token)

    def _held(self, lease: Lease) -> _Kept:
        kept = self._kept.get(lease.name)
        if kept is None or (kept.owner, kept.token) != (lease.owner, lease.token):
            raise _lost(lease, None if kept is None else kept.owner)
        return kept


async def _one(connection: AsyncConnection, statement: Update) -> Row[Any] | None:
    return (await connection.execute(statement.returning(*_COLUMNS))).first()


def _held(lease: Lease) -> Update:
    """An update that touches nothing unless ``lease`` is the one that is held."""
    return update(subscriptions).where(*is_held(lease))


def is_held(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    """Conditions on the table, which its row meets as long as ``lease`` is the one that is held."""
    return _COLUMNS.name == lease.name, _COLUMNS.token == lease.token, _COLUMNS.owner == lease.owner


def _lease(row: Row[Any], ttl_s: float) -> Lease:
    return Lease(
        name=row.name,
        owner=row.owner,
        token=row.token,
        position=row.position,
        ttl_s=ttl_s,
        expires_at_us=row.expires_at_us,
    )


def _end_us(now_us: int, ttl_s: float) -> int:
    return now_us + int(ttl_s * 1_000_000)


def _lost(lease: Lease, owner: str | None) -> LeaseLost:
    now = f"{owner!r} holds it now" if owner is not None else "it was released"
    return LeaseLost(f"{lease.owner!r} lost the lease of subscription {lease.name!r}: {now}")


def _backwards(lease: Lease, kept: int, position: int | None) -> InvalidValue:
    return InvalidValue(f"subscription {lease.name!r} is at position {kept} already and does not go back to {position}")
