"""PostgreSQL that is cut off, killed, frozen, locked or shared: clear errors, nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress

import pytest
from sqlalchemy import URL

from manent.adapters.store import postgres_writer
from manent.adapters.store.postgres import PostgresEventStore, ensure_postgres_log
from manent.adapters.store.postgres_link import DEFAULT_LIMITS, PostgresLimits, connect
from manent.app.system import RandomIds
from manent.domain.errors import StoreUnavailable, VersionConflict
from manent.domain.records import EventContext, EventFilter
from tests.support.conversation import said, started
from tests.support.cutting_proxy import cutting_proxy
from tests.support.engines import until
from tests.support.fakes import FakeClock
from tests.support.log import tree_of, whole_log
from tests.support.postgres import PostgresServer

CONTEXT = EventContext(tenant="acme", actor="ann")
QUICK = PostgresLimits(connect_s=1.0, lock_s=0.5, answer_s=1.5, outcome_s=3.0)


@asynccontextmanager
async def opened(url: URL, *, limits: PostgresLimits = DEFAULT_LIMITS) -> AsyncGenerator[PostgresEventStore, None]:
    """A store over a log that has a head."""
    ids = RandomIds()
    await ensure_postgres_log(url, ids)
    store = PostgresEventStore(url, clock=FakeClock(), ids=ids, limits=limits)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def store(postgres_url: URL) -> AsyncGenerator[PostgresEventStore, None]:
    """A store with the usual limits."""
    async with opened(postgres_url) as made:
        yield made


async def append(store: PostgresEventStore, stream_id: str, version: int = 0) -> int:
    """One event at the end of a stream; its position."""
    appended = await store.append(stream_id, [started()], expected_version=version, context=CONTEXT)
    return appended.position


async def more_than(acknowledged: Mapping[str, int], count: int) -> None:
    """Wait until so many are acknowledged; a test's own timeout is the bound."""
    await until(lambda: len(acknowledged) > count)


async def until_appended(store: PostgresEventStore) -> None:
    """Append until the database takes it; a test's own timeout is the bound."""
    while True:
        with suppress(StoreUnavailable):
            await append(store, f"session-after-{time.monotonic_ns()}")
            return
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("swallow", [False, True], ids=["unsent", "unanswered"])
async def test_a_connection_cut_at_any_step_doubles_and_loses_nothing(
    postgres_url: URL, monkeypatch: pytest.MonkeyPatch, *, swallow: bool
) -> None:
    """Connecting, preparing, each statement, COMMIT: what was told is what the log says, and a retry fits in."""
    monkeypatch.setattr(postgres_writer, "AWAY_S", 0.0)
    async with opened(postgres_url) as direct, cutting_proxy(postgres_url) as (proxy, through):
        step, resolved = 0, 0
        while proxy.cut_at <= proxy.steps:
            step += 1
            proxy.steps, proxy.cut_at, proxy.swallow = 0, step, swallow
            store = PostgresEventStore(through, clock=FakeClock(), ids=RandomIds(), limits=QUICK)
            try:
                told = await append(store, f"session-{step}")
                resolved += proxy.steps > step
            except StoreUnavailable:
                told = 0
            assert len(await direct.read_stream("acme", f"session-{step}")) == (1 if told else 0)
            if not told:
                assert await append(store, f"session-{step}") == step
            await store.aclose()
        assert step > 15  # connecting included
        assert resolved == (1 if swallow else 0)  # the COMMIT alone may have happened
        assert (await whole_log(direct))[-1].header.position == step


async def test_a_killed_connection_is_replaced(store: PostgresEventStore, postgres: PostgresServer) -> None:
    """An administrator ends every connection between two appends: writing and reading go on."""
    await append(store, "session-a")
    kill_connections(postgres, store)
    assert await append(store, "session-b") == 2
    assert len(await store.query(EventFilter())) == 2


async def test_an_unknown_outcome_is_said(postgres_url: URL) -> None:
    """COMMIT was sent, its answer lost, and the server stays away: the error claims neither."""
    async with opened(postgres_url) as direct, cutting_proxy(postgres_url) as (proxy, through):
        store = PostgresEventStore(through, clock=FakeClock(), ids=RandomIds(), limits=QUICK)
        await append(store, "session-a")
        before = proxy.steps
        await append(store, "session-b")
        commit = proxy.steps - before
        proxy.cut_at, proxy.swallow, proxy.shut_after_cut = proxy.steps + commit, True, True
        with pytest.raises(StoreUnavailable, match="not known"):
            await append(store, "session-c")
        assert len(await direct.read_stream("acme", "session-c")) == 1
        proxy.shut = False
        await asyncio.sleep(0.55)
        with pytest.raises(VersionConflict):
            await append(store, "session-c")
        await store.aclose()


async def test_a_node_that_holds_the_head_is_an_error_that_passes(postgres_url: URL) -> None:
    """While another node's transaction stands appends are refused within a bound; reading goes on."""
    async with opened(postgres_url, limits=QUICK) as store:
        other = await connect(postgres_url, DEFAULT_LIMITS)
        await other.execute("BEGIN")
        await other.execute("SELECT * FROM log_head FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="lock timeout") as caught:
            await append(store, "session-a")
        assert caught.value.retry_after_s == 1.0
        assert time.monotonic() - began < 2
        assert await store.query(EventFilter()) == []
        await other.execute("ROLLBACK")
        await other.close()
        assert await append(store, "session-a") == 1


async def test_a_database_that_is_away_is_an_error_that_passes(postgres_url: URL, postgres: PostgresServer) -> None:
    """Nobody may connect: appends and reads say so and when to try again; afterwards all is well."""
    async with opened(postgres_url, limits=QUICK) as store:
        await append(store, "session-a")
        postgres.run(f"ALTER DATABASE {postgres_url.database} ALLOW_CONNECTIONS false")
        kill_connections(postgres, store)
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                await append(store, "session-b")
            assert caught.value.retry_after_s == 1.0
            with pytest.raises(StoreUnavailable):
                await store.query(EventFilter())
        postgres.run(f"ALTER DATABASE {postgres_url.database} ALLOW_CONNECTIONS true")
        await asyncio.sleep(0.55)
        assert await append(store, "session-b") == 2


async def test_a_frozen_server_is_survived(own_postgres: PostgresServer) -> None:
    """Nothing answers for seconds: bounded waiting, clear refusals, and afterwards what was acknowledged is there."""
    with own_postgres.database() as url:
        async with opened(url, limits=QUICK) as store:
            acknowledged: dict[str, int] = {}
            refused: list[StoreUnavailable] = []

            async def client(number: int) -> None:
                for round_number in range(400):
                    stream_id = f"session-{number}-{round_number}"
                    try:
                        acknowledged[stream_id] = await append(store, stream_id)
                        await asyncio.sleep(0.02)
                    except StoreUnavailable as error:
                        refused.append(error)
                        await asyncio.sleep(0.1)
                    if thawed.is_set():
                        return

            thawed = asyncio.Event()
            clients = [asyncio.create_task(client(number)) for number in range(50)]
            await asyncio.sleep(0.3)
            with own_postgres.frozen():
                until_s = asyncio.get_running_loop().time() + QUICK.connect_s + QUICK.answer_s + QUICK.outcome_s
                async with asyncio.timeout(60):
                    while len(refused) < 50 or asyncio.get_running_loop().time() < until_s:
                        await asyncio.sleep(0.05)
                        assert store._committer.waiting <= 50
                with pytest.raises(StoreUnavailable):
                    await asyncio.wait_for(store.query(EventFilter()), timeout=5)
            thawed.set()
            await asyncio.gather(*clients)
            assert all(error.retry_after_s for error in refused)
            await append(store, "session-after")
            found = {entry.header.stream_id: entry.header.position for entry in await whole_log(store)}
            assert acknowledged.items() <= found.items()
            assert sorted(found.values()) == list(range(1, len(found) + 1))


async def test_a_crashing_server_is_survived(own_postgres: PostgresServer) -> None:
    """kill -9 of its processes under load, ten times: server and store recover, and what was acknowledged stands."""
    with own_postgres.database() as url:
        async with opened(url, limits=QUICK) as store:
            acknowledged: dict[str, int] = {}
            stop = asyncio.Event()

            async def client(number: int) -> None:
                for round_number in range(100_000):
                    with suppress(StoreUnavailable):
                        stream_id = f"session-{number}-{round_number}"
                        acknowledged[stream_id] = await append(store, stream_id)
                    await asyncio.sleep(0.01)
                    if stop.is_set():
                        return

            clients = [asyncio.create_task(client(number)) for number in range(32)]
            for _ in range(10):
                await more_than(acknowledged, len(acknowledged) + 100)
                own_postgres.kill_a_backend(url)
            stop.set()
            await asyncio.gather(*clients)
            await until_appended(store)
            entries = await whole_log(store)
            found = {entry.header.stream_id: entry.header.position for entry in entries}
            assert acknowledged.items() <= found.items()
            assert sorted(found.values()) == list(range(1, len(found) + 1))
            assert await store.head() == tree_of(entries)


async def test_eight_writers_on_two_nodes_race_on_one_stream(postgres_url: URL) -> None:
    """One wins each version, whichever node it is on, and the tree is that of the log."""
    async with opened(postgres_url) as first, opened(postgres_url) as second:
        won: list[int] = []

        async def writer(store: PostgresEventStore) -> None:
            version = 0
            while version < 40:
                try:
                    appended = await store.append("session-s", [started()], expected_version=version, context=CONTEXT)
                    won.append(appended.stream_version)
                    version = appended.stream_version
                except VersionConflict:
                    version = len(await store.read_stream("acme", "session-s"))

        await asyncio.gather(*(writer(store) for store in (first, second) for _ in range(4)))
        assert len(set(won)) == len(won) >= 40
        entries = await whole_log(first)
        assert [entry.header.stream_version for entry in entries] == sorted(won)
        assert await second.head() == tree_of(entries)


async def test_a_reader_that_follows_positions_skips_nothing(postgres_url: URL) -> None:
    """Three nodes append while transactions are held open now and then; position > ? sees 1, 2, 3 …"""
    async with opened(postgres_url) as a, opened(postgres_url) as b, opened(postgres_url) as c:
        seen: list[int] = []
        done = asyncio.Event()

        async def follow() -> None:
            while not done.is_set() or await a.query(EventFilter(), after_position=seen[-1], limit=1):
                page = await a.query(EventFilter(), after_position=seen[-1] if seen else 0, limit=50)
                seen.extend(entry.header.position for entry in page)
                await asyncio.sleep(0)

        async def write(store: PostgresEventStore, name: str) -> None:
            for number in range(60):
                await append(store, f"session-{name}-{number}")

        async def hold() -> None:
            holder = await connect(postgres_url, DEFAULT_LIMITS)
            for _ in range(10):
                await holder.execute("BEGIN")
                await holder.execute("SELECT * FROM log_head FOR UPDATE")
                await asyncio.sleep(0.02)
                await holder.execute("COMMIT")
                await asyncio.sleep(0.01)
            await holder.close()

        following = asyncio.create_task(follow())
        await asyncio.gather(write(a, "a"), write(b, "b"), write(c, "c"), hold())
        done.set()
        await following
        assert seen == list(range(1, 181))


@pytest.mark.parametrize("poison", ["nul \0 in it", "x" * 9000 + "ü\ud800"], ids=["nul", "surrogate"])
async def test_a_poisoned_append_in_a_full_batch_fails_alone(store: PostgresEventStore, poison: str) -> None:
    """What PostgreSQL cannot hold refuses itself, and nobody beside it."""
    streams = [f"session-{number}" for number in range(50)]
    streams.insert(25, f"session-{poison}")
    results = await asyncio.gather(*(append(store, stream) for stream in streams), return_exceptions=True)
    assert isinstance(results.pop(25), StoreUnavailable)
    assert sorted(result for result in results if isinstance(result, int)) == list(range(1, 51))


async def test_a_payload_may_hold_any_character(store: PostgresEventStore) -> None:
    """Content is bytes to PostgreSQL: a NUL that somebody said is kept."""
    await store.append("session-s", [said("user", "a\0b")], expected_version=0, context=CONTEXT)
    assert (await store.read_stream("acme", "session-s"))[0].event == said("user", "a\0b")


def kill_connections(postgres: PostgresServer, store: PostgresEventStore) -> None:
    """End every connection to the store's database, as an administrator would."""
    postgres.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{store._name}'")
