"""Files and batches over a store in memory, and what works batches off; input files, and what answers say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from openai import AsyncOpenAI
from openai.types import Batch

from manent.adapters.http.batch_lines import HttpBatchRequests
from manent.adapters.http.context import HttpLimits
from manent.app.settings import Settings
from manent.domain.subscriptions import SubscriptionStore
from manent.domain.usecases.key_table import KeyTable
from manent.domain.usecases.work_batches import BatchLimits
from tests.support.http import Running

CHAT: Final = "/v1/chat/completions"
ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
WAIT_S = 20.0


@asynccontextmanager
async def working(
    running: Running,
    subscriptions: SubscriptionStore,
    *,
    keys: KeyTable | None = None,
    **settings: Any,
) -> AsyncGenerator[None, None]:
    """Have the batches of a server worked off."""
    requests = HttpBatchRequests(running.services, HttpLimits())
    work = running.batch_cases.working(
        Settings(_env_file=None, **settings), requests, subscriptions, keys, BatchLimits(ttl_s=5.0, refresh_s=0.05)
    )
    task = asyncio.create_task(work.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def line(custom_id: str, content: str = "hello", url: str = CHAT, **body: Any) -> dict[str, Any]:
    """A line of an input file: a chat, unless the body says otherwise."""
    members = {"model": "default", **({"messages": [{"role": "user", "content": content}]} if url == CHAT else {})}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {**members, **body}}


def jsonl(lines: Sequence[dict[str, Any] | bytes]) -> bytes:
    """A file of ``lines``; bytes are taken as they are."""
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)


async def begun(
    client: AsyncOpenAI, lines: Sequence[dict[str, Any] | bytes] | bytes, url: Any = CHAT, **members: Any
) -> Batch:
    """A batch of ``lines``."""
    data = lines if isinstance(lines, bytes) else jsonl(lines)
    file = await client.files.create(file=("in.jsonl", data), purpose="batch")
    return await client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h", **members)


async def ended(client: AsyncOpenAI, batch: Batch, *, wait_s: float = WAIT_S) -> Batch:
    """The batch once it is over."""
    async with asyncio.timeout(wait_s):
        while batch.status not in ENDED:
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
    return batch


async def answers(client: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file; none where there is no file."""
    if file_id is None:
        return []
    content = await client.files.content(file_id)
    return [json.loads(one) for one in content.text.splitlines()]
