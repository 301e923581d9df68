"""Batches whose store fails at every step in turn, and whose workers are ended at any moment: each line once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, InternalServerError
from openai.types import Batch

from manent.adapters.inference.script import Script
from manent.adapters.store.memory import MemoryEventStore
from manent.adapters.store.memory_work import MemoryFileContent
from manent.adapters.store.subscriptions import MemorySubscriptionStore
from manent.app.system import RandomIds, SystemClock
from manent.domain.errors import StoreUnavailable
from manent.domain.events import DomainEvent
from manent.domain.files import CHUNK_BYTES
from manent.domain.records import Appended, EventContext, IdempotencyKey
from manent.domain.subscriptions import HeldBy, Lease
from tests.support.batches import answers, begun, ended, line, working
from tests.support.http import Running, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

LINES = 5


@dataclass(slots=True)
class Faults:
    """Fails one step, before it or once it is done, and counts them all; -1 fails none."""

    at: int = -1
    done_first: bool = False
    steps: list[str] = field(default_factory=list)

    def begin(self, what: str) -> None:
        """A step begins."""
        self.steps.append(what)
        if not self.done_first:
            self._fail()

    def end(self) -> None:
        """A step is done."""
        if self.done_first:
            self._fail()

    def _fail(self) -> None:
        if len(self.steps) - 1 == self.at:
            self.at = -1
            raise StoreUnavailable("a fault")


class FaultyStore(MemoryEventStore):
    """A store whose appends to the streams of batches and files may fail."""

    faults = Faults()

    async def append(
        self,
        stream_id: str,
        events: Sequence[DomainEvent],
        *,
        expected_version: int,
        context: EventContext,
        idempotency: IdempotencyKey | None = None,
    ) -> Appended:
        """See ``EventStore.append``."""
        is_ours = stream_id.startswith(("batch-", "file-")) and context.actor == "manent"
        if is_ours:
            self.faults.begin(type(events[0]).__name__)
        appended = await super().append(
            stream_id, events, expected_version=expected_version, context=context, idempotency=idempotency
        )
        if is_ours:
            self.faults.end()
        return appended


class FaultyContent(MemoryFileContent):
    """Content that a worker may fail to write or destroy."""

    faults = Faults()

    async def put(self, tenant: str, file_id: str, number: int, data: bytes, *, lease: Lease | None = None) -> None:
        """See ``FileContent.put``."""
        if lease is not None:
            self.faults.begin("put")
        await super().put(tenant, file_id, number, data, lease=lease)
        if lease is not None:
            self.faults.end()


@dataclass(frozen=True, kw_only=True)
class World:
    """A server over a store that fails when it is told to."""

    running: Running
    client: AsyncOpenAI
    store: FaultyStore
    content: FaultyContent

    def fail(self, at: int, *, done_first: bool = False) -> Faults:
        """Have the step with this number fail, counted from now."""
        self.store.faults = self.content.faults = Faults(at=at, done_first=done_first)
        return self.store.faults

    async def check(self, batch: Batch, *, count: int = LINES) -> None:
        """Every line is answered once, in the one file or the other, and was generated once."""
        assert batch.status == "completed"
        good, bad = await answers(self.client, batch.output_file_id), await answers(self.client, batch.error_file_id)
        found = Counter(answer["custom_id"] for answer in (*good, *bad))
        assert found == dict.fromkeys(("bad", *map(str, range(count - 1))), 1)
        assert [answer["custom_id"] for answer in bad] == ["bad"]
        assert batch.request_counts is not None
        assert batch.request_counts.to_dict() == {"total": count, "completed": count - 1, "failed": 1}
        requested = [e for e in await self.running.log("CompletionRequested") if e.header.correlation_id == batch.id]
        assert len({entry.header.request_id for entry in requested}) == count - 1
        generated = [e for e in await self.running.log("CompletionGenerated") if e.header.correlation_id == batch.id]
        assert len(generated) == count - 1


@pytest_asyncio.fixture(loop_scope="module")
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World, None]:
    """The world, in which every two lines are recorded."""
    monkeypatch.setattr("manent.domain.usecases.work_batch.LINES_AT_ONCE", 2)
    monkeypatch.setattr("manent.domain.usecases.work_batches.LEASES", "b/")
    store = FaultyStore(clock=SystemClock(), ids=RandomIds())
    content = FaultyContent(store.work, now_us=SystemClock().now_us)
    async with (
        running_server(Script(pieces=("yes",)), store=store, content=content) as running,
        running.openai() as client,
    ):
        yield World(running=running, client=client, store=store, content=content)


async def of_lines(client: AsyncOpenAI, count: int = LINES) -> Batch:
    """A batch of good lines and a bad one."""
    return await begun(client, [*(line(str(number)) for number in range(count - 1)), line("bad", temperature=9)])


@pytest.mark.parametrize("done_first", [False, True], ids=["not done", "done, and not told"])
async def test_a_store_that_fails_at_every_step(world: World, *, done_first: bool) -> None:
    """Wherever it fails, the next worker goes on from what is recorded."""
    async with working(world.running, MemorySubscriptionStore(clock=SystemClock())):
        steps = world.fail(-1)
        await world.check(await ended(world.client, await of_lines(world.client)))
        assert {"put", "BatchTaken", "BatchLinesEnded", "BatchFinalizing", "FileAdded", "BatchEnded"} <= set(
            steps.steps
        )
        for step in range(len(steps.steps)):
            faults = world.fail(step, done_first=done_first)
            await world.check(await ended(world.client, await of_lines(world.client)))
            assert faults.at == -1, f"step {step} was never reached"


async def test_an_input_that_is_damaged_fails_its_batch(world: World) -> None:
    """Nobody waits for it to mend."""
    leases = MemorySubscriptionStore(clock=SystemClock())
    world.fail(-1)
    batch = await of_lines(world.client)
    world.content._pieces["default", batch.input_file_id][0] += b" "
    async with working(world.running, leases):
        batch = await ended(world.client, batch)
    assert batch.status == "failed"
    assert [mistake.code for mistake in (batch.errors and batch.errors.data) or ()] == ["log_corrupt"]


async def test_an_input_that_is_deleted_keeps_what_is_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes end in the middle: the lines that were begun are answered, recorded and told."""
    world.fail(-1)
    batch = await begun(world.client, [*(line(str(number)) for number in range(4)), line("long", "x" * CHUNK_BYTES)])
    looked_at: list[int] = []
    read = world.content.read

    async def read_once(tenant: str, file_id: str, number: int) -> bytes | None:
        if (file_id, number) == (batch.input_file_id, 1):
            looked_at.append(number)
            if len(looked_at) > 1:
                await world.client.files.delete(file_id)
        return await read(tenant, file_id, number)

    monkeypatch.setattr(world.content, "read", read_once)
    async with working(world.running, MemorySubscriptionStore(clock=SystemClock())):
        batch = await ended(world.client, batch)
    assert batch.status == "failed"
    assert [mistake.code for mistake in (batch.errors and batch.errors.data) or ()] == ["file_not_found"]
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 4
    told = await answers(world.client, batch.output_file_id)
    assert sorted(answer["custom_id"] for answer in told) == ["0", "1", "2", "3"]


async def test_a_database_that_cannot_be_looked_through_ends_no_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that nobody works on are not found for a while; those that somebody works on go on."""
    world.fail(-1)
    batch = await of_lines(world.client)
    found = world.store.work.open_batches
    looks: list[int] = []

    async def found_once(*, limit: int) -> list[tuple[str, str, str]]:
        looks.append(limit)
        if len(looks) > 1:
            raise StoreUnavailable("a fault")
        return await found(limit=limit)

    monkeypatch.setattr(world.store.work, "open_batches", found_once)
    put = world.content.put

    async def slow(tenant: str, file_id: str, number: int, data: bytes, *, lease: Lease | None = None) -> None:
        await asyncio.sleep(0.1)
        await put(tenant, file_id, number, data, lease=lease)

    monkeypatch.setattr(world.content, "put", slow)
    async with working(world.running, MemorySubscriptionStore(clock=SystemClock())):
        await world.check(await ended(world.client, batch))
    assert len(looks) > 1


async def test_an_upload_that_was_recorded_and_not_told_keeps_its_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client hears of a failure; the file that is listed all the same can be read."""
    world.fail(-1)
    append = world.store.append

    async def untold(stream_id: str, events: Sequence[DomainEvent], **members: Any) -> Appended:
        await append(stream_id, events, **members)
        raise StoreUnavailable("a fault")

    monkeypatch.setattr(world.store, "append", untold)
    with pytest.raises(InternalServerError):
        await world.client.with_options(max_retries=0).files.create(file=("in.jsonl", b"{}"), purpose="batch")
    monkeypatch.undo()
    (file,) = (await world.client.files.list()).data
    assert (await world.client.files.content(file.id)).content == b"{}"


async def test_a_worker_that_ends_at_any_moment(world: World) -> None:
    """Ten workers after each other, each ended after a while, answer every line once."""
    moments, leases = random.Random(1), MemorySubscriptionStore(clock=SystemClock())
    world.fail(-1)
    batch = await of_lines(world.client, 40)
    for _ in range(10):
        async with working(world.running, leases, batch_lines_max=3):
            await asyncio.sleep(moments.uniform(0, 0.03))
    async with working(world.running, leases):
        await world.check(await ended(world.client, batch), count=40)


async def test_two_nodes_share_the_work(world: World) -> None:
    """A batch is one node's at a time; both see the lease, and every line is answered once."""
    leases = MemorySubscriptionStore(clock=SystemClock())
    world.fail(-1)
    async with working(world.running, leases), working(world.running, leases):
        made = [await of_lines(world.client, 12) for _ in range(6)]
        for batch in made:
            await world.check(await ended(world.client, batch), count=12)


class StolenLeases(MemorySubscriptionStore):
    """Leases that whoever comes last has: as if the one before had slept through the end of its own."""

    async def acquire(self, name: str, *, owner: str, ttl_s: float) -> Lease | HeldBy:
        """See ``SubscriptionStore.acquire``."""
        if (kept := self._kept.get(name)) is not None:
            kept.owner = None
        return await super().acquire(name, owner=owner, ttl_s=ttl_s)


async def test_a_worker_that_lost_its_lease_records_nothing(world: World) -> None:
    """Two workers that both believe to have the batch: the log decides, and every line is answered once."""
    world.fail(-1)
    batch = await of_lines(world.client, 30)
    leases = StolenLeases(clock=SystemClock())
    world.content._holds = leases.holds
    async with (
        working(world.running, leases, batch_lines_max=2),
        working(world.running, leases, batch_lines_max=2),
    ):
        batch = await ended(world.client, batch)
    taken = [entry for entry in await world.running.log("BatchTaken") if entry.header.correlation_id == batch.id]
    assert len(taken) > 1
    await world.check(batch, count=30)
