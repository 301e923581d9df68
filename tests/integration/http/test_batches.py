"""Files and batches as OpenAI's own client knows them, over a scripted engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from manent.adapters.inference.scripted import Script
from manent.adapters.store.subscriptions import MemorySubscriptionStore
from manent.app.system import SystemClock
from tests.support.batches import CHAT, answers, begun, ended, line, working
from tests.support.http import Running, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncGenerator[Running, None]:
    """A server that works batches off."""
    async with (
        running_server(Script(pieces=("Hello", " there"))) as running,
        working(running, MemorySubscriptionStore(clock=SystemClock())),
    ):
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(running: Running) -> AsyncGenerator[AsyncOpenAI, None]:
    """The official client."""
    async with running.openai() as client:
        yield client


async def test_from_upload_to_download(client: AsyncOpenAI, running: Running) -> None:
    """Every line is answered, by its custom_id, as the server answers the same request; the log tells them apart."""
    batch = await begun(client, [line("a"), line("b", "and you?"), line("c", max_tokens=1)], metadata={"for": "me"})
    assert (batch.status, batch.metadata, batch.endpoint) == ("validating", {"for": "me"}, CHAT)
    batch = await ended(client, batch)
    assert (batch.status, batch.errors, batch.error_file_id) == ("completed", None, None)
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 3, "failed": 0}
    assert batch.in_progress_at and batch.finalizing_at and batch.completed_at and batch.expires_at
    found = {answer["custom_id"]: answer for answer in await answers(client, batch.output_file_id)}
    assert found.keys() == {"a", "b", "c"}
    assert found["a"]["error"] is None
    assert found["a"]["response"]["status_code"] == 200
    assert found["a"]["response"]["body"]["choices"][0]["message"]["content"] == "Hello there"
    assert found["c"]["response"]["body"]["choices"][0]["finish_reason"] == "length"
    requests = {entry.header.request_id for entry in await running.log("CompletionRequested")}
    assert {answer["response"]["request_id"] for answer in found.values()} <= requests
