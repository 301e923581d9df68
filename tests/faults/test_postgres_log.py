"""What PostgreSQL itself keeps: append-only by force, partitions ahead of need, nodes that see each other."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL

from manent.adapters.store.memory import MemoryEventStore
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.postgres import PostgresEventStore, ensure_postgres_log
from manent.adapters.store.postgres_link import DEFAULT_LIMITS, connect
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.system import RandomIds
from manent.domain.events import DomainEvent
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from tests.support.conversation import failed, generated, requested, said, started
from tests.support.database import empty_database
from tests.support.fakes import CountingIds, FakeClock
from tests.support.log import tree_of, whole_log
from tests.support.postgres import PostgresServer

CONTEXT = EventContext(tenant="acme", actor="ann")
HEADER = (
    "INSERT INTO event_headers SELECT {position}, log_id, '{event_id}', type, schema_version, stream_id, {version}, "
    "recorded_at_us, tenant, actor, request_id, correlation_id, causation_id, payload_digest FROM event_headers "
    "WHERE position = 2"
)


@asynccontextmanager
async def opened(
    url: URL, *, node_id: int | None = None, partition_positions: int = 1000
) -> AsyncGenerator[PostgresEventStore, None]:
    """A store over a log that has a head; with ``node_id`` it is a node."""
    ids = RandomIds()
    await ensure_postgres_log(url, ids)
    store = PostgresEventStore(
        url, clock=FakeClock(), ids=ids, node_id=node_id, partition_positions=partition_positions
    )
    try:
        await store.start()
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def app_url(postgres: PostgresServer, postgres_url: URL) -> Iterator[URL]:
    """The same database, as somebody who has the application's role and no other right."""
    user = f"{postgres_url.database}_app"
    postgres.run(f"CREATE ROLE {user} LOGIN PASSWORD 'secret' IN ROLE manent_app")
    yield postgres_url.set(username=user, password="secret")  # noqa: S106 (a test's own)
    postgres.run(f"DROP ROLE {user}")


FORBIDDEN = {
    "change a header": "UPDATE event_headers SET actor = 'eve' WHERE position = 1",
    "delete a header": "DELETE FROM event_headers WHERE position = 3",
    "empty the headers": "TRUNCATE event_headers",
    "change a header in its partition": "UPDATE event_headers_1 SET actor = 'eve' WHERE position = 1",
    "delete a header in its partition": "DELETE FROM event_headers_1 WHERE position = 3",
    "empty the partition": "TRUNCATE event_headers_1",
    "insert into the partition": "INSERT INTO event_headers_1 SELECT * FROM event_headers WHERE position = 1",
    "insert a header again": HEADER.format(position=2, event_id="e", version=2),
    "insert behind a gap": HEADER.format(position=5, event_id="e", version=4),
    "insert a version twice": HEADER.format(position=4, event_id="e", version=3),
    "insert behind a gap of versions": HEADER.format(position=4, event_id="e", version=5),
    "insert over a header": HEADER.format(position=2, event_id="e", version=2)
    + " ON CONFLICT (position) DO UPDATE SET actor = 'eve'",
    "change a payload": "UPDATE event_payloads SET payload = 'x' WHERE position = 1",
    "empty the payloads": "TRUNCATE event_payloads",
    "insert a payload of an old event": "INSERT INTO event_payloads VALUES (3, 'json', 'x', 'x')",
    "change the tree": "UPDATE tree_nodes SET hash = 'x'",
    "shrink the tree": "DELETE FROM tree_nodes",
    "empty the tree": "TRUNCATE tree_nodes",
    "insert a node again": "INSERT INTO tree_nodes VALUES (8, 0, 'x')",
    "set the head back": "UPDATE log_head SET position = 1",
    "rename the log": "UPDATE log_head SET position = position + 1, log_id = 'log_eve'",
    "delete the head": "DELETE FROM log_head",
    "empty the head": "TRUNCATE log_head",
    "insert a second head": "INSERT INTO log_head SELECT 2, log_id, 0, 0, frontier, root FROM log_head",
}


@pytest.mark.parametrize("replica", [False, True], ids=["", "replica"])
async def test_the_database_refuses_whatever_is_no_append(postgres_url: URL, app_url: URL, *, replica: bool) -> None:
    """Superuser, application, triggers of replicas: the log only grows, and stands as it was."""
    async with opened(postgres_url) as store:
        await store.append("session-s", [started(), said("user", "x"), started()], expected_version=0, context=CONTEXT)
        superuser = await connect(postgres_url, DEFAULT_LIMITS)
        application = await connect(app_url, DEFAULT_LIMITS)
        await superuser.execute("DELETE FROM event_payloads WHERE position = 3")  # erasure is allowed
        await superuser.execute("INSERT INTO tree_nodes VALUES (8, 0, 'node')")
        if replica:
            await superuser.execute("SET session_replication_role = replica")
        for connection in (superuser, application):
            for what, statement in FORBIDDEN.items():
                with pytest.raises(asyncpg.PostgresError) as caught:
                    await connection.execute(statement)
                words = str(caught.value)
                expected = ("append-only", "permission denied", "duplicate key", "log_head_one_row")
                assert any(word in words for word in expected), (what, words)
            await connection.close()
        assert await store.head() == tree_of(await whole_log(store))
        appended = await store.append("session-s", [started()], expected_version=3, context=CONTEXT)
        assert appended.position == 4


async def test_the_application_role_is_enough_to_serve(postgres_url: URL, app_url: URL) -> None:
    """Somebody with nothing but the role appends, closes, repeats keys, reads, and has partitions made."""
    await ensure_postgres_log(postgres_url, RandomIds())
    async with opened(app_url, node_id=11, partition_positions=10_000_000) as store:
        await asyncio.to_thread(upgrade, app_url)
        await store.append("session-s", [started(), requested("c1")], expected_version=0, context=CONTEXT)
        await store.append("session-s", [failed("c1")], expected_version=2, context=CONTEXT)
        assert await store.orphaned_completions() == []
        made = await store_value(app_url, "SELECT manent_make_partitions(10000001, 1000)")
        assert made == 10_001_000
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await store_value(app_url, "UPDATE event_headers SET actor = 'eve'")


async def test_partitions_are_made_ahead(postgres_url: URL, postgres: PostgresServer) -> None:
    """The log rolls over from partition to partition in the middle of batches, and every event is found."""
    forget_partitions(postgres, postgres_url)
    async with opened(postgres_url, partition_positions=10) as store:
        for number in range(12):
            events: list[DomainEvent] = [started() for _ in range(number % 7 + 1)]
            await store.append(f"session-{number}", events, expected_version=0, context=CONTEXT)
        entries = await whole_log(store)
        assert [entry.header.position for entry in entries] == list(range(1, len(entries) + 1))
        assert all(entry.payload for entry in entries)
        assert await store.head() == tree_of(entries)
        assert len(await store.read_stream("acme", "session-6")) == 7
        end = await store_value(postgres_url, "SELECT max(last_position) FROM log_partitions")
        assert len(entries) + 5 <= end <= len(entries) + 15


async def test_a_partition_that_cannot_be_made_ahead_fails_nobody(postgres_url: URL, postgres: PostgresServer) -> None:
    """Whoever stands in the way of the next partition delays it, and no append that has room."""
    forget_partitions(postgres, postgres_url)
    async with opened(postgres_url, partition_positions=10) as store:
        await store.append("session-a", [started()] * 3, expected_version=0, context=CONTEXT)
        other = await connect(postgres_url, DEFAULT_LIMITS)
        await other.execute("BEGIN")
        await other.execute("LOCK TABLE event_headers IN SHARE UPDATE EXCLUSIVE MODE")  # what VACUUM and ANALYZE take
        began = time.monotonic()
        await store.append("session-b", [started()] * 4, expected_version=0, context=CONTEXT)
        assert time.monotonic() - began < 2
        await other.execute("ROLLBACK")
        await other.close()
        await store.append("session-c", [started()] * 9, expected_version=0, context=CONTEXT)
        assert len(await whole_log(store)) == 16


async def test_every_store_has_the_same_root_for_the_same_appends(tmp_path: Path, postgres_url: URL) -> None:
    """Memory, SQLite and PostgreSQL agree on every byte that is hashed."""
    memory = MemoryEventStore(clock=FakeClock(), ids=CountingIds())
    ids = CountingIds()
    empty_database(tmp_path / "manent.db")
    await ensure_log(tmp_path / "manent.db", ids)
    sqlite = SQLiteEventStore(tmp_path / "manent.db", clock=FakeClock(), ids=ids)
    ids = CountingIds()
    await ensure_postgres_log(postgres_url, ids)
    postgres = PostgresEventStore(postgres_url, clock=FakeClock(), ids=ids)
    stores: list[EventStore] = [memory, sqlite, postgres]
    heads = []
    for store in stores:
        for number in range(30):
            events: list[DomainEvent] = [
                said("user", f"grüß dich 🙂 {number}"),
                requested(f"c{number}"),
                generated(f"c{number}"),
            ]
            await store.append(f"session-{number}", [*[started()] * 9, *events], expected_version=0, context=CONTEXT)
        heads.append(await store.head())
    assert heads[0].size == 360
    assert heads[0] == heads[1] == heads[2]
    assert await postgres.tree_node(8, 0) == await sqlite.tree_node(8, 0) == await memory.tree_node(8, 0)
    with closing(sqlite3.connect(tmp_path / "manent.db")) as connection:
        (root,) = connection.execute("SELECT root FROM log_head").fetchone()
    assert root == heads[0].root == await store_value(postgres_url, "SELECT root FROM log_head")
    await sqlite.aclose()
    await postgres.aclose()


async def test_only_the_completions_of_absent_nodes_are_orphans(
    postgres_url: URL, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a living node has open is its own, also over a broken connection; after its end it is everybody's."""
    monkeypatch.setattr("manent.adapters.store.postgres.ABSENT_FOR_S", 1.0)
    async with opened(postgres_url, node_id=1) as survivor:
        async with opened(postgres_url, node_id=2**63 - 1) as other:
            await other.append("session-a", [started(), requested("c1")], expected_version=0, context=CONTEXT)
            assert [found.completion_id for found in await survivor.open_completions()] == ["c1"]
            assert await survivor.orphaned_completions() == []
            assert [found.completion_id for found in await other.orphaned_completions()] == ["c1"]
            postgres.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres' "
                f"AND pid <> pg_backend_pid() AND datname = '{postgres_url.database}'"
            )
            assert await survivor.orphaned_completions() == []
        found = await survivor.orphaned_completions(completion_id="c1")
        assert [completion.completion_id for completion in found] == ["c1"]
        assert await survivor.orphaned_completions(completion_id="c2") == []


async def test_nodes_hear_of_each_other_s_commits(postgres_url: URL) -> None:
    """One notification a batch, with the position that it reached."""
    async with opened(postgres_url, node_id=1) as first, opened(postgres_url, node_id=2) as second:
        heard: asyncio.Queue[int | None] = asyncio.Queue()
        second.observe(heard.put_nowait)
        await first.append("session-a", [started(), started()], expected_version=0, context=CONTEXT)
        async with asyncio.timeout(5):
            assert await heard.get() == 2


def forget_partitions(postgres: PostgresServer, url: URL) -> None:
    """Take away the first partitions of an empty log, so that small ones can be made."""
    postgres.run("DROP TABLE event_headers_1, event_payloads_1", "DELETE FROM log_partitions", url=url)


async def store_value(url: URL, statement: str) -> Any:
    """The value that one statement gives, on a connection of its own."""
    connection = await connect(url, DEFAULT_LIMITS)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
