"""What a server does beside answering: loops that run as long as it does, each mended by beginning again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from manent.domain.errors import DomainError

AGAIN_S = 5.0
CANCELS_MAX = 10
CANCEL_AGAIN_S = 0.5

_log = logging.getLogger("manent.background")


@asynccontextmanager
async def in_background(loops: Mapping[str, Callable[[], Awaitable[None]]]) -> AsyncGenerator[None, None]:
    """Run ``loops``, each by its name, until the context ends; then cancel them and wait for their ends.

    A loop that fails is logged and begins again after ``AGAIN_S``: a server whose sweeper met a defect still answers.
    One that returns is done.
    """
    tasks = [asyncio.create_task(_kept_up(name, loop), name=name) for name, loop in loops.items()]
    try:
        yield
    finally:
        await end(*tasks)


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancel ``tasks`` and wait for their ends, as often as it takes within a bound.

    Once may not do: a library that fails while it cleans up raises its own error in place of the cancellation, and
    a loop that goes on after errors then goes on.
    """
    for _ in range(CANCELS_MAX):
        left = {task for task in tasks if not task.done()}
        if not left:
            break
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
    else:
        _log.error("these do not end: %s", ", ".join(task.get_name() for task in tasks if not task.done()))
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _kept_up(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await loop()
        except DomainError as error:
            _log.warning("%s failed and begins again in %g s: %s", name, AGAIN_S, error.message)
        except Exception:  # noqa: BLE001 (a defect in one loop must not end the others, nor pass in silence)
            _log.exception("%s failed and begins again in %g s", name, AGAIN_S)
        else:
            return
        await asyncio.sleep(AGAIN_S)
