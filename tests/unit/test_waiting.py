"""Waiting for work no longer than it is wanted: nothing is left running, and nothing that was taken is lost."""

from __future__ import annotations

import asyncio

import pytest

from manent.domain.usecases.turns import Turns
from manent.domain.waiting import Gone, StopSignal, Waited, done_or_gone, end_with_gone


async def forever() -> None:
    """What never ends by itself."""
    await asyncio.Event().wait()


async def at_once() -> None:
    """What ends at once."""


async def broken() -> None:
    """What fails."""
    raise RuntimeError("broken")


async def cleaning_up() -> None:
    """What ends in an error of its own when it is cancelled."""
    try:
        await forever()
    finally:
        raise RuntimeError("while it was cancelled")


@pytest.mark.parametrize(
    ("work", "gone", "timeout_s", "expected"),
    [
        (at_once, None, None, Waited.DONE),
        (at_once, at_once, None, Waited.DONE),
        (at_once, forever, 60.0, Waited.DONE),
        (broken, forever, None, Waited.DONE),
        (forever, at_once, None, Waited.GONE),
        (cleaning_up, at_once, None, Waited.GONE),
        (forever, forever, 0.001, Waited.TIMED_OUT),
        (forever, None, 0.001, Waited.TIMED_OUT),
    ],
)
async def test_how_a_wait_ended_is_told_and_nothing_runs_on(
    work: Gone, gone: Gone | None, timeout_s: float | None, expected: Waited
) -> None:
    """What was not done is cancelled, and an error that nobody will ask for is not reported as lost."""
    working = asyncio.ensure_future(work())
    assert await end_with_gone(working, gone, timeout_s=timeout_s) is expected
    assert working.done()
    if work is broken:
        assert isinstance(working.exception(), RuntimeError)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_work_can_be_left_as_it_is() -> None:
    """Its owner gives it up in a way of its own."""
    work = asyncio.get_running_loop().create_future()
    assert await done_or_gone(work, at_once) is Waited.GONE
    assert not work.done()


async def test_an_error_of_whoever_watches_is_raised() -> None:
    """A watcher that broke is not taken for somebody who left."""
    work = asyncio.ensure_future(forever())
    with pytest.raises(RuntimeError, match="broken"):
        await end_with_gone(work, broken)
    assert work.cancelled()


async def test_who_is_cancelled_while_waiting_leaves_nothing_running() -> None:
    """Neither the work nor the look-out for who leaves."""
    work = asyncio.ensure_future(forever())
    waiting = asyncio.create_task(end_with_gone(work, forever))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("rounds", range(12))
async def test_a_turn_that_comes_to_somebody_who_is_cancelled_is_handed_on(rounds: int) -> None:
    """Cancelled at whichever step of taking its turn: the session is free for the next."""
    turns, others = Turns(wait_s=5.0, waiting_max=8), asyncio.Event()

    async def use() -> None:
        async with turns.take("acme", "s", gone=forever):
            await others.wait()

    holder = asyncio.create_task(use())
    await asyncio.sleep(0.001)
    cancelled = asyncio.create_task(use())
    follower = asyncio.create_task(use())
    await asyncio.sleep(0.001)
    others.set()
    for _ in range(rounds):
        await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    async with asyncio.timeout(2):
        await asyncio.gather(holder, follower)


async def test_a_block_is_left_without_an_error_once_it_is_called_off() -> None:
    """At once or later, and nothing of the cancellation is left over; what ended by itself is not touched."""
    signal = StopSignal()
    with signal.calling_off():
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(signal.set)
    passed = False
    with signal.calling_off():
        await forever()
        passed = True
    with signal.calling_off():
        await forever()
        passed = True
    assert not passed
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_who_is_cancelled_from_outside_stays_cancelled() -> None:
    """A signal at the same time does not swallow it; errors of the work pass."""
    signal = StopSignal()

    async def work() -> None:
        with signal.calling_off():
            await forever()

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    working.cancel()
    signal.set()
    with pytest.raises(asyncio.CancelledError):
        await working
    with pytest.raises(RuntimeError, match="broken"), StopSignal().calling_off():
        await broken()
