"""Redis flushed, evicting, frozen, restarted, tampered with: contexts stay right, and nobody waits twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from manent.adapters.projections.frames import TRAILER
from manent.adapters.projections.redis_contexts import ContextLimits, RedisContextCache
from manent.adapters.store.sqlite import ensure_log
from manent.app.system import RandomIds
from manent.domain.history import History
from manent.domain.projections import CacheUnavailable
from manent.domain.records import EventContext
from manent.domain.session import SessionState
from tests.support.conversation import said, started, user
from tests.support.database import empty_database
from tests.support.sharing import TIMEOUT_S, Node, folded, sharing_node
from tests.support.valkey import ValkeyServer

CONTEXT = EventContext(tenant="acme", actor="ann")
GARBAGE: list[tuple[str, list[tuple[Any, ...]]]] = [
    ("text", [("SET", "KEY", b"hello, this is no context at all")]),
    ("empty", [("SET", "KEY", b"")]),
    ("trailer alone", [("SET", "KEY", TRAILER.pack(1, 2, 2**32 - 1, 3))]),
    ("cut at the end", [("SETRANGE", "KEY", 40, b"XX")]),
    ("grown", [("APPEND", "KEY", b"more")]),
    ("another frame", [("APPEND", "KEY", b"{}" + TRAILER.pack(0, 2, 99, 2))]),
    ("list", [("DEL", "KEY"), ("RPUSH", "KEY", "a", "b")]),
    ("hash", [("DEL", "KEY"), ("HSET", "KEY", "a", "b")]),
    ("number", [("SET", "KEY", "7")]),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with today's schema."""
    empty_database(tmp_path / "manent.db")
    return tmp_path / "manent.db"


@pytest.fixture
async def node(path: Path, own_valkey: ValkeyServer) -> AsyncGenerator[Node, None]:
    """A node alone with an empty Valkey."""
    await ensure_log(path, RandomIds())
    own_valkey.run("FLUSHALL")
    async with sharing_node(path, own_valkey.url) as made:
        yield made


async def converse(node: Node, messages: int = 3) -> SessionState:
    """A session with some messages."""
    state = SessionState(session_id="s", tenant="acme")
    state, _ = await node.sessions.record(state, [started()], context=CONTEXT)
    for number in range(messages):
        state, _ = await node.sessions.record(state, [said("user", str(number))], context=CONTEXT)
    return state


def is_open(node: Node) -> bool:
    """Whether Redis is left alone."""
    return node.breaker.is_open


async def key_of(node: Node) -> str:
    """The session's key."""
    return node.shared._key(await node.shared.epoch(), "acme", "s")


def kept(valkey: ValkeyServer, key: str) -> bytes | None:
    """The bytes of a key."""
    with valkey.client() as client:
        value = client.get(key)
    return value if isinstance(value, bytes) else None


@pytest.mark.parametrize(("_name", "commands"), GARBAGE, ids=[name for name, _ in GARBAGE])
async def test_what_was_written_by_hand_is_not_believed(
    node: Node, own_valkey: ValkeyServer, _name: str, commands: list[tuple[Any, ...]]
) -> None:
    """Whatever stands under a key: reads are right, writes are right, and afterwards the context is kept again."""
    state, key = await converse(node), await key_of(node)
    for name, target, *arguments in commands:
        own_valkey.run(name, key if target == "KEY" else target, *arguments)
    node.forget_near()
    assert await node.sessions.load("acme", "s") == state
    grown, _ = await node.sessions.record(state, [said("user", "more")], context=CONTEXT)
    node.forget_near()
    assert await node.sessions.load("acme", "s") == grown == await folded(node.store, "acme", "s")
    assert await node.shared.get("acme", "s") == grown


@pytest.mark.parametrize(("_name", "commands"), GARBAGE, ids=[name for name, _ in GARBAGE])
async def test_a_write_over_garbage_is_harmless(
    node: Node, own_valkey: ValkeyServer, _name: str, commands: list[tuple[Any, ...]]
) -> None:
    """A turn that goes on while its context is overwritten: the next reader has what the log says."""
    state, key = await converse(node), await key_of(node)
    for name, target, *arguments in commands:
        own_valkey.run(name, key if target == "KEY" else target, *arguments)
    grown, _ = await node.sessions.record(state, [said("user", "more")], context=CONTEXT)
    node.forget_near()
    assert await node.sessions.load("acme", "s") == grown == await folded(node.store, "acme", "s")


async def test_a_forged_version_is_refuted_by_the_log(node: Node) -> None:
    """A context that is well formed and ends with an event that the log does not have is dropped."""
    state = await converse(node)
    ahead = replace(state, version=state.version + 5, messages=state.messages.extended(user("never said")))
    other = replace(state, last_event_id="evt_of_another_log", messages=History([user("never said")]))
    for forged in (ahead, other):
        await node.shared.forget("acme", "s")
        await node.shared.put(forged)
        node.forget_near()
        assert await node.sessions.load("acme", "s") == state
        assert await node.shared.get("acme", "s") == state


async def test_a_session_goes_on_after_a_flush(node: Node, own_valkey: ValkeyServer) -> None:
    """What is gone is written anew as a whole with the next turn; the epoch as well."""
    state = await converse(node)
    own_valkey.run("FLUSHALL")
    state, _ = await node.sessions.record(state, [said("user", "more")], context=CONTEXT)
    assert await node.shared.get("acme", "s") == state


async def test_a_frozen_redis_costs_one_timeout_a_period(path: Path, own_valkey: ValkeyServer) -> None:
    """The first who asks waits; everybody else reads the log, until one probe is answered."""
    await ensure_log(path, RandomIds())
    async with sharing_node(path, own_valkey.url, retry_s=60.0) as node:
        state = await converse(node)
        with own_valkey.frozen():
            began = time.monotonic()
            for number in range(50):
                node.forget_near()
                assert await node.sessions.load("acme", "s") == state
                state, _ = await node.sessions.record(state, [said("user", f"frozen {number}")], context=CONTEXT)
            waited_s = time.monotonic() - began
        assert node.breaker.is_open
        with own_valkey.frozen():
            bare_s = await _bare_s(node, state)
        assert waited_s < 2 * TIMEOUT_S + 3 * bare_s + 1.0


async def _bare_s(node: Node, state: SessionState) -> float:
    """How long the same takes while the breaker is open."""
    began = time.monotonic()
    for number in range(50):
        node.forget_near()
        await node.sessions.load("acme", "s")
        state, _ = await node.sessions.record(state, [said("user", f"open {number}")], context=CONTEXT)
    return time.monotonic() - began


async def test_it_is_asked_again_and_then_used_again(node: Node, own_valkey: ValkeyServer) -> None:
    """After a restart, with everything gone, contexts are shared as before."""
    state = await converse(node)
    own_valkey.kill()
    state, _ = await node.sessions.record(state, [said("user", "away")], context=CONTEXT)
    assert is_open(node)
    own_valkey.start()
    await asyncio.sleep(0.1)
    state, _ = await node.sessions.record(state, [said("user", "back")], context=CONTEXT)
    assert not is_open(node)
    assert await node.shared.get("acme", "s") == state


async def test_a_cancelled_command_leaves_no_answer_behind(path: Path, own_valkey: ValkeyServer) -> None:
    """The next one on the pool's only connection gets its own answer, whenever the one before was given up."""
    await ensure_log(path, RandomIds())
    async with sharing_node(path, own_valkey.url, timeout_s=5.0) as node:
        link = node.shared._link
        link._client.connection_pool.max_connections = 1
        for number in range(200):
            own_valkey.run("SET", f"number:{number}", str(number))
            asking = asyncio.create_task(link.one("GET", f"number:{number}"))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            first, second = await link.several([("ECHO", f"a{number}"), ("ECHO", f"b{number}")])
            assert (first, second) == (f"a{number}".encode(), f"b{number}".encode())


async def test_an_answer_that_comes_too_late_is_nobodys(node: Node, own_valkey: ValkeyServer) -> None:
    """After a timeout the connection is gone, and with it the late answer."""
    link = node.shared._link
    with own_valkey.frozen(), pytest.raises(CacheUnavailable, match="did not answer within"):
        await link.one("ECHO", "late")
    assert await link.one("ECHO", "now") == b"now"


async def test_a_server_that_refuses_writes_costs_no_answer(node: Node, own_valkey: ValkeyServer) -> None:
    """Out of memory without eviction: sessions are read from the log and go on."""
    state = await converse(node)
    own_valkey.run("CONFIG", "SET", "maxmemory", "1")
    try:
        state, _ = await node.sessions.record(state, [said("user", "more")], context=CONTEXT)
        node.forget_near()
        assert await node.sessions.load("acme", "s") == state
    finally:
        own_valkey.run("CONFIG", "SET", "maxmemory", "0")


async def test_contexts_expire_and_are_bounded(path: Path, own_valkey: ValkeyServer) -> None:
    """A key lives for its time after its last use; a session beyond the bound is not kept, and loses nothing by it."""
    await ensure_log(path, RandomIds())
    own_valkey.run("FLUSHALL")
    async with sharing_node(
        path, own_valkey.url, limits=ContextLimits(ttl_s=100.0, session_bytes_max=2000), timeout_s=5.0
    ) as node:
        state = await converse(node)
        key = await key_of(node)
        assert 90_000 < own_valkey.run("PTTL", key) <= 100_000
        for number in range(40):
            state, _ = await node.sessions.record(state, [said("user", f"{number} " + "x" * 90)], context=CONTEXT)
            assert (own_valkey.run("STRLEN", key) or 0) <= 2000
        assert await node.shared.get("acme", "s") is None
        assert await node.shared.versions([("acme", "s"), ("acme", "t")]) == [None, 0]
        node.forget_near()
        assert await node.sessions.load("acme", "s") == state
        assert own_valkey.run("STRLEN", key) == TRAILER.size


@pytest.mark.parametrize("bytes_max", [10_000, 100])
async def test_a_rebuild_fills_in_what_the_script_would_write(
    path: Path, own_valkey: ValkeyServer, bytes_max: int
) -> None:
    """The same bytes for the same time, also of a context that is too large to be kept."""
    await ensure_log(path, RandomIds())
    own_valkey.run("FLUSHALL")
    limits = ContextLimits(ttl_s=100.0, session_bytes_max=bytes_max)
    async with sharing_node(path, own_valkey.url, limits=limits, timeout_s=5.0) as node:
        state = await converse(node)
        await node.shared.forget("acme", "s")
        await node.shared.put(state)
        written = kept(own_valkey, await key_of(node))
        epoch = await node.shared.begin_epoch()
        await node.shared.fill(epoch, [state])
        await node.shared.switch(epoch)
        assert written is not None
        assert kept(own_valkey, await key_of(node)) == written
        assert 90_000 < own_valkey.run("PTTL", await key_of(node)) <= 100_000


async def test_two_nodes_write_to_one_session_at_once(path: Path, own_valkey: ValkeyServer) -> None:
    """Frames of two writers never mix: each reads the other's, whoever's write arrives first."""
    await ensure_log(path, RandomIds())
    own_valkey.run("FLUSHALL")
    async with (
        sharing_node(path, own_valkey.url, timeout_s=5.0) as one,
        sharing_node(path, own_valkey.url, timeout_s=5.0) as two,
    ):
        states = [await converse(one)]
        for number in range(20):
            for writer in (one, two):
                state = await writer.sessions.load("acme", "s")
                assert state.version == states[-1].version
                states.append((await writer.sessions.record(state, [said("user", str(number))], context=CONTEXT))[0])
        puts = [one.shared.put(after, before=before) for before, after in pairwise(states)]
        await asyncio.gather(*reversed(puts))
        assert await two.shared.get("acme", "s") == states[-1]


async def test_a_new_epoch_is_seen_at_once(path: Path, own_valkey: ValkeyServer) -> None:
    """After a switch nobody reads what the epoch before held, and what it held expires."""
    await ensure_log(path, RandomIds())
    own_valkey.run("FLUSHALL")
    async with (
        sharing_node(path, own_valkey.url, timeout_s=5.0) as one,
        sharing_node(path, own_valkey.url, timeout_s=5.0) as two,
    ):
        state = await converse(one)
        assert await two.shared.get("acme", "s") == state
        old, epoch = await key_of(one), await one.shared.begin_epoch()
        forged = replace(state, messages=History([user("from the new epoch")]))
        await one.shared.fill(epoch, [forged])
        assert await two.shared.get("acme", "s") == state
        await one.shared.switch(epoch)
        assert await two.shared.get("acme", "s") == forged
        assert kept(own_valkey, old) is not None
        assert own_valkey.run("PTTL", old) > 0


async def test_a_lost_or_damaged_epoch_is_made_anew(node: Node, own_valkey: ValkeyServer) -> None:
    """The name of the epoch may be evicted or overwritten like any key."""
    state = await converse(node)
    for command in (("DEL",), ("SET", "nonsense"), ("LPUSH", "a")):
        if command[0] == "LPUSH":
            own_valkey.run("DEL", "manent:log_1:epoch")
        own_valkey.run(command[0], "manent:log_1:epoch", *command[1:])
        node.forget_near()
        assert await node.sessions.load("acme", "s") == state
        node.forget_near()
        assert await node.shared.get("acme", "s") == state


def test_keys_of_all_names_are_told_apart() -> None:
    """Names with separators and braces in them, in one slot of a cluster each."""
    cache = RedisContextCache(None, log_id="l", ids=RandomIds())  # type: ignore[arg-type]  # no command is sent
    names = [("a", "b/c"), ("a/b", "c"), ("a}", "c"), ("{a", "}c"), ("ä", "c")]
    keys = [cache._key("e", *name) for name in names]
    assert len(set(keys)) == len(keys)
    assert all(key.count("{") == key.count("}") == 1 and key.endswith("}") for key in keys)
