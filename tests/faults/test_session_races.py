"""Two servers on one PostgreSQL: writers that read the same version, and sweepers against use at the last moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL

from tests.support.http import NO_TLS, USER
from tests.support.server import serving

TTL_S = 1
USERS = 12


@pytest.fixture
def nodes(tmp_path: Path, postgres_url: URL) -> Iterator[tuple[str, str]]:
    """The addresses of two servers that sweep all the time."""
    settings = {
        "database_url": postgres_url.render_as_string(hide_password=False),
        "engine": "scripted",
        "sweep_interval_s": 0.1,
    }
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "one", **settings) as one, serving(tmp_path / "two", **settings) as two:
        yield one.address, two.address


@asynccontextmanager
async def clients(nodes: tuple[str, str]) -> AsyncGenerator[list[httpx.AsyncClient], None]:
    """A client of each."""
    async with (
        httpx.AsyncClient(base_url=nodes[0], timeout=30, verify=NO_TLS) as one,
        httpx.AsyncClient(base_url=nodes[1], timeout=30, verify=NO_TLS) as two,
    ):
        yield [one, two]


async def test_a_version_has_one_next_one_across_nodes(nodes: tuple[str, str]) -> None:
    """Ten writers on two nodes count up under If-Match: no count is lost, and a chat under it has one winner."""
    async with clients(nodes) as https:
        await https[0].post("/v1/sessions", json={"session_id": "s", "metadata": {"n": "0"}})

        async def count_up(http: httpx.AsyncClient) -> None:
            while True:
                read = await http.get("/v1/sessions/s")
                metadata = {"n": str(int(read.json()["metadata"]["n"]) + 1)}
                condition = {"If-Match": read.headers["etag"]}
                wrote = await http.post("/v1/sessions/s", json={"metadata": metadata}, headers=condition)
                if wrote.status_code == 200:
                    return
                assert wrote.status_code == 412, wrote.text

        await asyncio.gather(*(count_up(https[number % 2]) for number in range(10)))
        read = await https[1].get("/v1/sessions/s")
        assert (read.json()["metadata"], read.headers["etag"]) == ({"n": "10"}, '"11"')

        async def chat(http: httpx.AsyncClient) -> int:
            body = {"model": "default", "messages": [USER], "session_id": "s"}
            answer = await http.post("/v1/chat/completions", json=body, headers={"If-Match": '"11"'})
            assert answer.status_code in {200, 409, 412}, answer.text
            return answer.status_code

        statuses = await asyncio.gather(*(chat(https[number % 2]) for number in range(6)))
        assert statuses.count(200) == 1
        assert (await https[0].get("/v1/sessions/s")).json()["message_count"] == 2


async def test_use_and_expiry_agree_across_nodes(nodes: tuple[str, str]) -> None:
    """Sessions used just before, at, and just after they are due: each is either in use or expired, to all nodes."""
    async with clients(nodes) as https:
        rng = random.Random(5)

        async def live(number: int) -> tuple[str, int]:
            session_id = f"s{number}"
            started: dict[str, Any] = {"session_id": session_id, "ttl_s": TTL_S}
            await https[number % 2].post("/v1/sessions", json=started)
            used = 0
            while True:
                await asyncio.sleep(TTL_S * rng.choice([0.3, 0.5, 0.8, 0.95, 1.0]))
                answer = await https[rng.randrange(2)].post(f"/v1/sessions/{session_id}/messages", json=USER)
                if answer.status_code == 410:
                    return session_id, used
                assert answer.status_code == 201, answer.text
                used += 1
                if used == 8:
                    await asyncio.sleep(TTL_S + 0.01)

        lives = await asyncio.gather(*(live(number) for number in range(USERS)))
        for session_id, used in lives:
            types: list[str] = []
            async with asyncio.timeout(20):
                while "SessionExpired" not in types:
                    await asyncio.sleep(0.05)
                    page = (await https[0].get("/v1/events", params={"session": session_id})).json()
                    types = [event["header"]["type"] for event in page["data"]]
            assert types == ["SessionStarted", *["MessageAppended"] * used, "SessionExpired"]
            for http in https:
                assert (await http.get(f"/v1/sessions/{session_id}")).status_code == 410
                assert (await http.post(f"/v1/sessions/{session_id}/messages", json=USER)).status_code == 410
        listed = (await https[1].get("/v1/sessions", params={"status": "expired", "limit": 100})).json()["data"]
        assert {session["id"] for session in listed} == {session_id for session_id, _ in lives}
        assert any(used for _, used in lives)
