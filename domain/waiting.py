"""Waiting for work, but no longer than somebody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any

Gone = Callable[[], Awaitable[None]]
"""Returns when nobody wants the work any more."""


class Waited(Enum):
    """How a wait ended; DONE wins where two came at once."""

    DONE = auto()
    GONE = auto()
    TIMED_OUT = auto()


async def done_or_gone(work: asyncio.Future[Any], gone: Gone | None, *, timeout_s: float | None = None) -> Waited:
    """Wait until ``work`` is done, ``gone`` returns or the time is over.

    ``work`` is the caller's and left as it is; ``gone`` does not run any more on return, whatever happened.
    """
    left = None if gone is None else asyncio.ensure_future(gone())
    try:
        await asyncio.wait({work} if left is None else {work, left}, timeout=timeout_s, return_when="FIRST_COMPLETED")
        if work.done():
            return Waited.DONE
        if left is None or not left.done():
            return Waited.TIMED_OUT
        left.result()
        return Waited.GONE
    finally:
        if left is not None:
            await end(left)


async def end_with_gone(work: asyncio.Future[Any], gone: Gone | None, *, timeout_s: float | None = None) -> Waited:
    """As ``done_or_gone``, but ``work`` does not run any more on return either, nor where the caller is cancelled.

    What was not DONE is cancelled; if ``work`` took something that is to be given back, it has where it is done and not
    cancelled.
    """
    try:
        return await done_or_gone(work, gone, timeout_s=timeout_s)
    finally:
        await end(work)


async def end(work: asyncio.Future[Any]) -> None:
    """Cancel ``work`` unless it is done, and wait until it is; what it fails in then is nobody's to know."""
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
        if not work.cancelled():
            work.exception()
