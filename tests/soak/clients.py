"""Clients that stream, and leave when they like."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
from httpx_sse import SSEError, aconnect_sse

SESSIONS = 24
LEAVING_SHARE = 0.25
SESSION_SHARE = 0.5
TIMEOUT_S = 120.0
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class Tally:
    """What came of all requests. ``whole`` are the completions that a client saw to ``[DONE]``."""

    whole: list[str] = field(default_factory=list)
    left: int = 0
    told: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    cut: int = 0
    runner_kills: int = 0
    redis_restarts: int = 0
    first_content_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{count} {code}" for code, count in sorted(self.told.items()))
        return (
            f"{len(self.whole)} whole answers, {self.left} left by their client, {self.told.total()} ended by an "
            f"error that was told ({told or 'none'}), {self.refused} refused, {self.cut} cut off; {self.runner_kills} "
            f"runners and {self.redis_restarts} Redis killed"
        )


class Client:
    """One of many: alone or in one of a few sessions that it shares with others."""

    def __init__(self, number: int, address: str, tally: Tally) -> None:
        self._number = number
        self._address = address
        self._tally = tally

    async def talk(self, enough: asyncio.Event) -> None:
        """Ask, one question after another, until it is enough."""
        async with httpx.AsyncClient(base_url=self._address, timeout=TIMEOUT_S, verify=_NO_TLS) as http:
            while not enough.is_set():
                try:
                    await self._ask(http)
                except (httpx.HTTPError, SSEError):
                    self._tally.cut += 1
                    await asyncio.sleep(0.2)

    async def _ask(self, http: httpx.AsyncClient) -> None:
        body: dict[str, object] = {
            "model": "default",
            "messages": [{"role": "user", "content": f"Client {self._number} says {random.randrange(1000)}."}],
            "max_tokens": random.randint(2, 12),
            "stream": True,
        }
        if random.random() < SESSION_SHARE:
            body |= {"session_id": f"soak-{random.randrange(SESSIONS)}-{int(time.monotonic()) // 60}"}
        leaves_after = random.randint(0, 5) if random.random() < LEAVING_SHARE else None
        began_s, chunks, completion_id = time.monotonic(), 0, ""
        async with aconnect_sse(http, "POST", "/v1/chat/completions", json=body) as source:
            if source.response.status_code != httpx.codes.OK:
                self._tally.refused += 1
                await asyncio.sleep(random.uniform(0.1, 0.5))
                return
            async for event in source.aiter_sse():
                if event.data == "[DONE]":
                    self._tally.whole.append(completion_id)
                    return
                chunk = json.loads(event.data)
                if "error" in chunk:
                    self._tally.told[chunk["error"]["code"]] += 1
                    return
                completion_id = chunk["id"]
                if chunks == 1:
                    self._tally.first_content_s.append(time.monotonic() - began_s)
                if leaves_after is not None and chunks >= leaves_after:
                    self._tally.left += 1
                    return
                chunks += 1
        self._tally.cut += 1
