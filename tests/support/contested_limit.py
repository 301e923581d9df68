"""A process that asks a shared limiter many times at once, and prints how often it was let through.

python -m tests.support.contested_limit REDIS_URL LOG_ID TIMES
"""

from __future__ import annotations

import asyncio
import sys

from manent.adapters.limits.shared import SharedLimiter
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.domain.limits import Charge, Limit, LimitedBy, Measure

CONTESTED = Limit(LimitedBy.KEY, "contested", Measure.REQUESTS, 250, 3600)


async def count(url: str, log_id: str, times: int) -> int:
    """Ask, all at once."""
    limiter = SharedLimiter(RedisLink(url, RedisLimits(connections_max=2, timeout_s=10.0)), log_id=log_id)
    sys.stdin.readline()
    taken = await asyncio.gather(*(limiter.take([Charge(CONTESTED)]) for _ in range(times)))
    await limiter.aclose()
    return sum(one.allowed for one in taken)


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(count(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
