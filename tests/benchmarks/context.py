"""The context of a session: from this process, from Valkey and from SQLite, each beside the bare driver.

A session of 1,000 messages, written turn by turn through the product (so that Valkey has it in many parts, as it is in
life). A context is read and checked whole, and its messages are made when they are looked at: both are measured.
The bare sides fetch the same bytes: LRANGE of a list of them with hiredis, and one SELECT with sqlite3 whose
rows are decoded and nothing else. Figures are medians over the rounds, which alternate; ratios are of one round.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import psutil
import uvloop
from redis.asyncio import Redis

from manent.adapters.projections.frames import growth
from manent.adapters.projections.lru import LruContextCache
from manent.adapters.projections.redis_contexts import RedisContextCache
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.adapters.store.codec import EVENT_TYPES
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.session_walk import SQLSessionWalk
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.system import RandomIds, SystemClock
from manent.domain.events import DomainEvent
from manent.domain.messages import Message
from manent.domain.records import EventContext
from manent.domain.session import SessionState
from manent.domain.usecases.rebuild_contexts import RebuildContexts
from manent.domain.usecases.sessions import Sessions
from tests.benchmarks.big_log import LogWriter
from tests.support.conversation import generated, requested, said, started
from tests.support.fakes import FakeClock
from tests.support.valkey import serving_valkey

MESSAGES = 1000
WORDS = "some words that a person might say to a machine, " * 4
CONTEXT = EventContext(tenant="acme", actor="ann")
REPEATS = 20
MIB = 1024 * 1024

DECODERS = {name: msgspec.json.Decoder(event_class) for name, (event_class, _) in EVENT_TYPES.items()}

Work = Callable[[], Awaitable[object]]


def compare(rounds: int = 5, *, events: int = 1_000_000) -> None:
    """Measure and print."""
    sys.stdout.write(f"Context of a session of {MESSAGES} messages, medians of {rounds} rounds of {REPEATS}:\n")
    uvloop.run(_compare_reads(rounds))
    if events == 0:
        return
    sys.stdout.write(f"Rebuild of the contexts of a log of {events:,} events, from SQLite to Valkey:\n")
    uvloop.run(_rebuild(rounds, events))


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    store: SQLiteEventStore
    link: RedisLink
    url: str


@asynccontextmanager
async def _places(clock: SystemClock | FakeClock) -> AsyncGenerator[_Place, None]:
    with tempfile.TemporaryDirectory(prefix="manent-bench-") as folder, serving_valkey() as valkey:
        path, ids = Path(folder) / "manent.db", RandomIds()
        upgrade(path)
        await ensure_log(path, ids)
        store = SQLiteEventStore(path, clock=clock, ids=ids)
        link = RedisLink(valkey.url, RedisLimits(timeout_s=30.0))
        try:
            yield _Place(path, store, link, valkey.url)
        finally:
            await link.aclose()
            await store.aclose()


async def _compare_reads(rounds: int) -> None:
    async with _places(SystemClock()) as place:
        ids = RandomIds()
        shared = RedisContextCache(place.link, log_id=ids.new("log_"), ids=ids)
        state = await _converse(Sessions(place.store, shared))
        near = LruContextCache(budget_bytes=10**9)
        await near.put(state)
        alone = Sessions(place.store, LruContextCache(budget_bytes=0))
        warm = Sessions(place.store, near)
        bare = Redis.from_url(place.url, protocol=2)
        *_, messages = msgspec.msgpack.decode(growth(state).body)
        await bare.rpush("bare", *[msgspec.msgpack.encode(message) for message in messages])
        assert (await shared.get("acme", "s")) == state
        sys.stdout.write(f"  {len(growth(state).body):,} bytes as a whole; {state.version:,} events\n")
        works: dict[str, Work] = {
            "LRU": lambda: near.get("acme", "s"),
            "LRU, and that the log has nothing newer": lambda: warm.load("acme", "s"),
            "Valkey": lambda: shared.get("acme", "s"),
            "Valkey, and every message looked at": lambda: _looked_at(shared),
            "bare LRANGE": lambda: bare.lrange("bare", 0, -1),
            "SQLite": lambda: alone.load("acme", "s"),
            "bare SELECT and decode": lambda: asyncio.to_thread(_bare_select, place.path),
        }
        found: dict[str, list[list[float]]] = {name: [] for name in works}
        for number in range(-1, rounds):
            for name, work in works.items():
                times_s = await _times_s(work, REPEATS * (50 if name.startswith("LRU") else 1))
                if number >= 0:  # the round before the first warms all up
                    found[name].append(times_s)
        for name, measured in found.items():
            p50, p99 = (1000 * median(at(times) for times in measured) for at in (median, _p99))
            sys.stdout.write(f"  {name:40} p50 {p50:7.3f} ms   p99 {p99:7.3f} ms\n")
        for ours, theirs in (("Valkey", "bare LRANGE"), ("SQLite", "bare SELECT and decode")):
            ratio = median(median(a) / median(b) for a, b in zip(found[ours], found[theirs], strict=True))
            sys.stdout.write(f"  {ours} beside {theirs}: {ratio:.2f} (target: at most 2)\n")
        await bare.aclose()


async def _converse(sessions: Sessions) -> SessionState:
    """A session of so many messages, turn by turn."""
    state = SessionState(session_id="s", tenant="acme")
    state, _ = await sessions.record(state, [started()], context=CONTEXT)
    for number in range(MESSAGES // 2):
        completion_id = f"c{number}"
        asked: list[DomainEvent] = [said("user", f"{number} {WORDS}"), requested(completion_id)]
        state, _ = await sessions.record(state, asked, context=CONTEXT)  # type: ignore[arg-type]  # all of sessions
        answer: list[DomainEvent] = [generated("ok", completion_id), said("assistant", f"{number} {WORDS}")]
        state, _ = await sessions.record(state, answer, context=CONTEXT)  # type: ignore[arg-type]  # all of sessions
    return state


async def _looked_at(contexts: RedisContextCache) -> list[Message]:
    state = await contexts.get("acme", "s")
    return list(state.messages) if state is not None else []


def _bare_select(path: Path) -> list[object]:
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT h.type, p.payload FROM event_headers h JOIN event_payloads p ON p.position = h.position "
        "WHERE h.tenant = 'acme' AND h.stream_id = 'session-s' ORDER BY h.stream_version"
    ).fetchall()
    connection.close()
    return [DECODERS[type_name].decode(payload) for type_name, payload in rows]


async def _times_s(work: Work, count: int) -> list[float]:
    times_s = []
    for _ in range(count):
        began = time.perf_counter()
        await work()
        times_s.append(time.perf_counter() - began)
    return times_s


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


async def _rebuild(rounds: int, events: int) -> None:
    clock = FakeClock()
    async with _places(clock) as place:
        await LogWriter(place.store, clock).write(events)
        ids, process = RandomIds(), psutil.Process()
        rates, grown = [], []
        for _ in range(rounds):
            shared = RedisContextCache(place.link, log_id=ids.new("log_"), ids=ids)
            rows = open_rows(place.path, strict=True)
            rss: list[int] = []
            sessions = Sessions(place.store, LruContextCache(budget_bytes=0))
            began = time.perf_counter()
            rebuilt = await RebuildContexts(SQLSessionWalk(rows), sessions, shared).run(
                lambda _done: rss.append(process.memory_info().rss)  # noqa: B023 (called within the round)
            )
            rates.append(events / (time.perf_counter() - began))
            grown.append((max(rss) - rss[0]) / MIB)
            await rows.aclose()
            await place.link.one("FLUSHALL", timeout_s=30.0)
        sys.stdout.write(
            f"  {median(rates):,.0f} events/s ({rebuilt.events:,} of them of {rebuilt.sessions:,} sessions; target: at "
            f"least 50,000); memory grew by {median(grown):.0f} MiB after the first page\n"
        )


if __name__ == "__main__":
    compare(int(sys.argv[1]) if len(sys.argv) > 1 else 5, events=int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
