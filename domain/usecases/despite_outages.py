"""What must be recorded is tried again while the store is away, within a bound."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from manent.domain.errors import StoreUnavailable
from manent.domain.ports import Clock

RETRY_DELAYS_S = (0.1, 0.3, 1.0, 2.0)

_T = TypeVar("_T")


async def despite_outages(attempt: Callable[[], Awaitable[_T]], clock: Clock) -> _T:
    """What ``attempt`` returns, at the fifth try at the latest.

    Raises:
        StoreUnavailable: the store stayed away.
    """
    for delay_s in RETRY_DELAYS_S:
        try:
            return await attempt()
        except StoreUnavailable:
            await clock.sleep(delay_s)
    return await attempt()
