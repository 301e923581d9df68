"""Group commit: who goes into a batch, what the queue holds, and who hears what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from manent.adapters.store.batch import AppendRequest
from manent.adapters.store.committer import BatchRefused, Committer, Verdicts
from manent.domain.errors import StoreUnavailable
from manent.domain.records import Appended, EventContext
from tests.support.conversation import said
from tests.support.fakes import CountingIds

CONTEXT = EventContext(tenant="acme", actor="ann")
POISON = "session-poison"


class GatedWriter:
    """Commits a batch once it is let, and counts positions; a batch with POISON is refused."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.batches: list[list[str]] = []
        self._position = 0

    async def write(self, requests: Sequence[AppendRequest]) -> Verdicts:
        """See ``BatchWriter.write``."""
        self.batches.append([request.stream_id for request in requests])
        await self.gate.wait()
        if POISON in self.batches[-1]:
            raise BatchRefused("poisoned", retry_alone=True)
        verdicts = []
        for _ in requests:
            self._position += 1
            verdicts.append(Appended(position=self._position, stream_version=1))
        return verdicts

    async def aclose(self) -> None:
        """Nothing to close."""


def request(stream_id: str, text: str = "x") -> AppendRequest:
    """An append of one message."""
    return AppendRequest.of(
        stream_id, [said("user", text)], expected_version=0, context=CONTEXT, idempotency=None, ids=CountingIds()
    )


async def started(committer: Committer, *requests: AppendRequest) -> list[asyncio.Task[Appended]]:
    """Appends on their way, as far as they get while the first of them commits."""
    tasks = []
    for one in requests:
        tasks.append(asyncio.create_task(committer.append(one)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return tasks


async def test_a_batch_is_what_gathered_while_the_last_one_committed() -> None:
    """A lone append does not wait for company, and those that come meanwhile go together."""
    writer = GatedWriter()
    committer = Committer(writer)
    appends = await started(committer, request("a"), request("b"), request("c"))
    assert writer.batches == [["a"]]
    writer.gate.set()
    assert [(await append).position for append in appends] == [1, 2, 3]
    assert writer.batches == [["a"], ["b", "c"]]


async def test_the_queue_is_bounded_in_appends() -> None:
    """One more than the queue holds is refused at once, with a wait, and the others commit."""
    writer = GatedWriter()
    committer = Committer(writer, waiting_max=2)
    appends = await started(committer, request("a"), request("b"), request("c"))
    with pytest.raises(StoreUnavailable, match="2 appends") as caught:
        await asyncio.wait_for(committer.append(request("d")), 5)
    assert caught.value.retry_after_s
    writer.gate.set()
    assert len(await asyncio.gather(*appends)) == 3


async def test_the_queue_is_bounded_in_bytes() -> None:
    """Few large appends fill it as many small ones do; what was taken out of it makes room again."""
    writer = GatedWriter()
    large = request("large", "x" * 10_000)
    committer = Committer(writer, waiting_bytes_max=2 * large.size_bytes)
    appends = await started(committer, large, large, large)
    with pytest.raises(StoreUnavailable, match=f"2 appends of {2 * large.size_bytes} bytes"):
        await asyncio.wait_for(committer.append(request("small")), 5)
    writer.gate.set()
    await asyncio.gather(*appends)
    assert (await committer.append(large)).position == 4


async def test_an_append_larger_than_the_queue_waits_alone() -> None:
    """Nothing that the log accepts is refused for its size; nothing else waits beside it."""
    writer = GatedWriter()
    committer = Committer(writer, waiting_bytes_max=5_000)
    large = request("large", "x" * 10_000)
    appends = await started(committer, request("a"), large)
    with pytest.raises(StoreUnavailable, match="1 appends"):
        await asyncio.wait_for(committer.append(request("b")), 5)
    writer.gate.set()
    assert [(await append).position for append in appends] == [1, 2]


async def test_a_cancelled_caller_leaves_its_append_in_the_batch() -> None:
    """Neither the batch nor anyone in it hears of the cancellation."""
    writer = GatedWriter()
    committer = Committer(writer)
    first, second, third = await started(committer, request("a"), request("b"), request("c"))
    first.cancel()
    second.cancel()
    await asyncio.sleep(0)
    assert first.cancelled()
    writer.gate.set()
    assert (await third).position == 3
    assert writer.batches == [["a"], ["b", "c"]]


async def test_a_poisoned_append_fails_alone() -> None:
    """The others of its batch are written one by one."""
    writer = GatedWriter()
    committer = Committer(writer)
    appends = await started(committer, request("a"), request("b"), request(POISON), request("c"))
    writer.gate.set()
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert isinstance(results.pop(2), StoreUnavailable)
    assert [result.position for result in results if isinstance(result, Appended)] == [1, 2, 3]


async def test_closing_commits_what_waits_and_takes_no_more() -> None:
    """Shutdown drains the queue."""
    writer = GatedWriter()
    committer = Committer(writer)
    appends = await started(committer, request("a"), request("b"))
    closing = asyncio.create_task(committer.aclose())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="closed"):
        await committer.append(request("c"))
    writer.gate.set()
    await closing
    assert [(await append).position for append in appends] == [1, 2]
