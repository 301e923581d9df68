"""The server answers to loopback's names only."""

from __future__ import annotations

import httpx
import pytest

from tests.support.http import running_server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9123", "LOCALHOST", "[::1]", "[::1]:9123"])
async def test_loopbacks_names_are_answered(host: str) -> None:
    """Whatever the port, and in any case."""
    async with running_server() as running, httpx.AsyncClient(base_url=running.address) as client:
        assert (await client.get("/v1/models", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9123", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]", ""]
)
@pytest.mark.parametrize("path", ["/v1/events", "/v1/models", "/docs", "/health/live"])
async def test_a_rebound_name_reads_nothing(host: str, path: str) -> None:
    """A web page that points its own name at loopback is refused, in OpenAI's envelope."""
    async with running_server() as running, httpx.AsyncClient(base_url=running.address) as client:
        answer = await client.get(path, headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "unknown_host")
