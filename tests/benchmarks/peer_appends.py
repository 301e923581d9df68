"""``eventsourcing`` (PyPI), for comparison: its event store, on the same file system and the same PostgreSQL server.

Each writer is a thread, since the library is not asynchronous, and puts one event after another into a sequence of its
own: ``EventStore.put`` encodes the event as JSON and commits it, as ``EventStore.append`` of Manent does. SQLite is in
WAL mode as the library sets it, with ``synchronous=FULL``, SQLite's own default. PostgreSQL is reached through psycopg.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.domain import DomainEvent
from sqlalchemy import URL

Peer = Callable[[int, int], Awaitable[float]]
"""Appends per second of so many writers who append so many events together."""


@dataclass(frozen=True)
class Said(DomainEvent):
    """What Manent's MessageAppended says."""

    session_id: str
    message_id: str
    role: str
    text: str
    appended_by: str


@asynccontextmanager
async def peer_sqlite(path: Path) -> AsyncGenerator[Peer, None]:
    """On a file; a writer may wait a minute for the others."""
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "SQLITE_DBNAME": str(path),
        "SQLITE_LOCK_TIMEOUT": "60",
    }
    async with _peer(environment) as peer:
        yield peer


@asynccontextmanager
async def peer_postgres(url: URL) -> AsyncGenerator[Peer | None, None]:
    """On a database; None without psycopg."""
    if importlib.util.find_spec("psycopg") is None:
        yield None
        return
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(url.database),
        "POSTGRES_HOST": str(url.host or url.query["host"]),
        "POSTGRES_PORT": str(url.port or 5432),
        "POSTGRES_USER": str(url.username),
        "POSTGRES_PASSWORD": str(url.password or ""),
        "POSTGRES_POOL_SIZE": "16",
    }
    async with _peer(environment) as peer:
        yield peer


@asynccontextmanager
async def _peer(environment: Mapping[str, str]) -> AsyncGenerator[Peer, None]:
    application: Application[UUID] = Application(env=environment)

    def write(count: int) -> None:
        sequence = uuid4()
        for version in range(1, count + 1):
            event = Said(
                originator_id=sequence,
                originator_version=version,
                timestamp=datetime.now(UTC),
                session_id="s",
                message_id="msg_user_Hello there!",
                role="user",
                text="Hello there!",
                appended_by="ann",
            )
            application.events.put([event])

    def write_all(writers: int, count: int) -> float:
        with ThreadPoolExecutor(max_workers=writers) as threads:
            began = time.perf_counter()
            for written in [threads.submit(write, max(1, count // writers)) for _ in range(writers)]:
                written.result()
            return max(1, count // writers) * writers / (time.perf_counter() - began)

    async def peer(writers: int, count: int) -> float:
        return await asyncio.to_thread(write_all, writers, count)

    try:
        yield peer
    finally:
        application.close()
