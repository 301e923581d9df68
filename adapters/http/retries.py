"""Retries of OpenAI's SDKs: they say how often they have tried, and nothing that all attempts share.

Without an ``Idempotency-Key``, a request that says it is a retry is taken for the one before it with the same sender
and the same bytes, if that is recent: it is answered with what that one generates, or has generated. A first attempt
never is.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Self

from manent.adapters.http.context import Exchange
from manent.adapters.http.idempotency import request_digest, scope_of
from manent.domain.usecases.reader import Reader
from manent.domain.usecases.running import RunningCompletion

RETRY_COUNT = "x-stainless-retry-count"
COUNT = re.compile(r"[0-9]{1,3}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A request of an SDK that tries again by itself."""

    exchange: Exchange
    request: str
    count: int

    @classmethod
    def of(cls, exchange: Exchange) -> Self | None:
        """What the request says of its attempts; None where it says nothing, or has a key for that."""
        headers = exchange.request.headers
        written = headers.get(RETRY_COUNT)
        if written is None or "idempotency-key" in headers or not COUNT.fullmatch(written):
            return None
        request = f"{scope_of(exchange)} {request_digest(exchange)}"
        return cls(exchange=exchange, request=request, count=int(written))

    def attached(self) -> RunningCompletion | None:
        """The completion of the attempt before, if it has not come to nothing; with one more reader."""
        completion_id = self.exchange.services.recent_requests.find(self.request) if self.count > 0 else None
        if completion_id is None:
            return None
        running = self.exchange.services.resume.at_hand(self.exchange.principal, completion_id)
        return None if running is None or running.failed else running

    def remember(self, running: RunningCompletion) -> None:
        """Have later attempts find ``running``, also after its end."""
        running.comes_back = True
        self.exchange.services.recent_requests.remember(self.request, running.completion_id)

    def leave_later(self, reader: Reader, reason: str) -> None:
        """Leave, unless there is an answer before the SDK would have tried again."""
        asyncio.get_running_loop().call_later(self.exchange.limits.retry_grace_s, reader.leave, reason)
