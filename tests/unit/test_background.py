"""Loops that run beside the server: one that fails begins again, and all end with it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from manent.app import background
from manent.app.background import end, in_background


async def test_a_loop_that_fails_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in one loop ends neither the others nor itself for good."""
    monkeypatch.setattr(background, "AGAIN_S", 0.0)
    runs: list[str] = []
    third = asyncio.Event()

    async def failing() -> None:
        runs.append("failing")
        if len(runs) == 3:
            third.set()
        raise ValueError("a defect")

    async with in_background({"failing": failing, "patient": asyncio.Event().wait}):  # type: ignore[dict-item]  # its result is nobody's
        await asyncio.wait_for(third.wait(), 10)
    assert len(runs) >= 3


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again() -> None:
    """Some libraries raise an error of their own in place of it, and the loop around them goes on."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            swallowed += 1
            if swallowed == 2:
                await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert (task.done(), swallowed) == (True, 2)
