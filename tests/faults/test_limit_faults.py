"""Limits while Redis is away, slow, emptied or written to by others; servers that end without a word."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest

from manent.adapters.limits.guarded import GuardedLimiter
from manent.adapters.limits.in_process import InProcessLimiter
from manent.adapters.limits.shared import LEASE_S, SharedLimiter
from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.app.system import RandomIds
from manent.domain.limits import Charge, Limit, LimitedBy, Measure
from tests.support.contested_limit import CONTESTED
from tests.support.fakes import FakeClock
from tests.support.valkey import ValkeyServer

HOUR = Limit(LimitedBy.KEY, "k", Measure.REQUESTS, 5, 3600)
RUNNING = Limit(LimitedBy.KEY, "k", Measure.RUNNING, 1)
GARBAGE: list[tuple[Any, ...]] = [
    ("SET", "KEY", "nonsense"),
    ("SET", "KEY", ""),
    ("SET", "KEY", "nan nan"),
    ("SET", "KEY", "inf 1"),
    ("SET", "KEY", "1e999 1e999"),
    ("RPUSH", "KEY", "a"),
    ("HSET", "KEY", "a", "b"),
    ("ZADD", "KEY", "1", "a"),
]


@dataclass
class Node:
    """A server's limits."""

    shared: SharedLimiter
    limiter: GuardedLimiter
    breaker: CircuitBreaker


def node_of(url: str, log_id: str, *, clock: FakeClock | None = None, timeout_s: float = 0.3) -> Node:
    """A server's limits, on the Redis at ``url``."""
    link = RedisLink(url, RedisLimits(connections_max=2, timeout_s=timeout_s))
    shared = SharedLimiter(link, log_id=log_id, now_us=None if clock is None else clock.now_us)
    breaker = CircuitBreaker(period_s=0.1)
    return Node(shared, GuardedLimiter(shared, InProcessLimiter(), breaker), breaker)


@pytest.fixture
async def node(own_valkey: ValkeyServer) -> AsyncGenerator[Node, None]:
    """A server's limits, of which nothing is counted."""
    made = node_of(own_valkey.url, RandomIds().new("log_"))
    yield made
    await made.shared.aclose()


def is_open(node: Node) -> bool:
    """Whether Redis is left alone."""
    return node.breaker.is_open


def test_two_processes_share_one_limit(valkey: ValkeyServer) -> None:
    """A thousand at once from each: together exactly the allowed number passes."""
    command = [sys.executable, "-m", "tests.support.contested_limit", valkey.url, RandomIds().new("log_"), "1000"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    passed = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(passed) == CONTESTED.amount


async def test_without_redis_each_server_counts_alone(
    node: Node, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody fails and nobody is let through without a limit; it is logged once, and over when Redis is back."""
    assert (await node.limiter.take([Charge(HOUR, 5)])).allowed
    own_valkey.kill()
    passed = [(await node.limiter.take([Charge(HOUR)], lease=f"l{n}")).allowed for n in range(8)]
    assert passed == [True] * 5 + [False] * 3
    assert node.limiter.fallbacks == 8
    assert is_open(node)
    assert len([one for one in caplog.records if one.levelname == "WARNING"]) == 1
    own_valkey.start()
    await asyncio.sleep(0.15)
    assert (await node.limiter.take([Charge(HOUR, 5)])).allowed
    assert not is_open(node)
    assert not (await node.limiter.take([Charge(HOUR)])).allowed
    assert node.limiter.fallbacks == 8
    await node.limiter.settle([Charge(HOUR, -1)], lease="l0")
    assert not (await node.limiter.take([Charge(HOUR)])).allowed


async def test_a_frozen_redis_holds_up_nobody_twice(node: Node, own_valkey: ValkeyServer) -> None:
    """All who asked when it froze wait for one timeout, together; those behind them do not wait."""
    node.breaker._period_s = 60.0
    with own_valkey.frozen():
        began = time.monotonic()
        taken = await asyncio.gather(*(node.limiter.take([Charge(HOUR)]) for _ in range(500)))
        first_s = time.monotonic() - began
        for _ in range(100):
            await node.limiter.take([Charge(HOUR)])
        behind_s = time.monotonic() - began - first_s
    assert sum(one.allowed for one in taken) == 5
    assert first_s < 4 * 0.3 + 1.0
    assert behind_s < first_s


async def test_what_runs_lapses_with_its_server(own_valkey: ValkeyServer) -> None:
    """A server that is killed holds its places for a minute; one that lives renews them, also after a flush."""
    clock, log_id = FakeClock(), RandomIds().new("log_")
    killed, living = (node_of(own_valkey.url, log_id, clock=clock, timeout_s=5.0).shared for _ in range(2))
    other = Limit(LimitedBy.KEY, "other", Measure.RUNNING, 1)
    assert (await killed.take([Charge(RUNNING)], lease="one")).allowed
    assert (await living.take([Charge(other)], lease="two")).allowed
    await killed.aclose()
    clock.advance(LEASE_S * 0.9)
    await living.renew()
    assert not (await living.take([Charge(RUNNING)], lease="three")).allowed
    clock.advance(LEASE_S * 0.2)
    assert (await living.take([Charge(RUNNING)], lease="three")).allowed
    assert not (await living.take([Charge(other)], lease="four")).allowed
    own_valkey.run("FLUSHALL")
    await living.renew()
    assert not (await living.take([Charge(other)], lease="four")).allowed
    await living.settle([], lease="two")
    await living.renew()
    assert (await living.take([Charge(other)], lease="four")).allowed
    await living.aclose()


@pytest.mark.parametrize("command", GARBAGE, ids=repr)
async def test_what_others_wrote_counts_as_nothing(
    node: Node, own_valkey: ValkeyServer, command: tuple[Any, ...]
) -> None:
    """Whatever stands in the place of a bucket or of a set: limits hold from then on."""
    for limit, amount in ((HOUR, 5), (RUNNING, 1)):
        key = node.shared._key(limit)
        own_valkey.run(*(key if part == "KEY" else part for part in command))
        passed = [(await node.shared.take([Charge(limit)], lease=str(n))).allowed for n in range(amount + 1)]
        assert passed in ([True] * amount + [False], [True] * (amount - 1) + [False] * 2)


async def test_keys_expire_and_scripts_are_loaded_again(node: Node, own_valkey: ValkeyServer) -> None:
    """Each bucket has a time to live of as long as it takes to be empty; a flush of scripts costs nobody an answer."""
    await node.shared.take([Charge(HOUR), Charge(RUNNING)], lease="l")
    assert 720_000 <= own_valkey.run("PTTL", node.shared._key(HOUR)) <= 721_000
    assert 0 < own_valkey.run("PTTL", node.shared._key(RUNNING)) <= LEASE_S * 1000
    own_valkey.run("SCRIPT", "FLUSH")
    taken = await asyncio.gather(*(node.shared.take([Charge(HOUR)]) for _ in range(6)))
    assert [one.allowed for one in taken] == [True] * 4 + [False] * 2


async def test_who_does_not_wait_any_more_disturbs_nobody(node: Node) -> None:
    """Cancelled at any moment, a question leaves the others their own answers."""
    for number in range(50):
        limit = Limit(LimitedBy.KEY, str(number), Measure.REQUESTS, 2, 3600)
        asking = [asyncio.create_task(node.shared.take([Charge(limit)])) for _ in range(3)]
        for _ in range(number % 5):
            await asyncio.sleep(0)
        asking[0].cancel()
        answers = await asyncio.gather(*asking[1:])
        assert all(answer.levels[0].limit is limit for answer in answers)
        assert sum(answer.allowed for answer in answers) in {1, 2}
