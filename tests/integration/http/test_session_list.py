"""GET /v1/sessions: pages, filters, who sees whose, and what a listed session says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import BaseModel
from openai.pagination import AsyncCursorPage

from manent.adapters.http.wire_responses import Session, SessionList
from manent.adapters.store.memory import MemoryEventStore
from manent.app.system import RandomIds
from manent.domain.access import Principal, Scope
from tests.support.fakes import FakeClock
from tests.support.http import Running, client, running_server

ANN = client("ann")
BOB = client("bob")
AUDITOR = Principal(tenant="t", subject="eve", scopes=frozenset({Scope.AUDIT}))
STRANGER = Principal(tenant="other", subject="ann", scopes=frozenset({Scope.ADMIN}))


async def start(running: Running, session_id: str, **members: Any) -> None:
    """Start a session."""
    answer = await running.http.post("/v1/sessions", json={"session_id": session_id, **members})
    assert answer.status_code == 201, answer.text


async def listed(running: Running, **query: Any) -> list[str]:
    """The ids on a page."""
    answer = await running.http.get("/v1/sessions", params=query)
    assert answer.status_code == 200, answer.text
    page = SessionList.model_validate_json(answer.content, strict=True)
    ids = [session.id for session in page.data]
    assert (page.first_id, page.last_id) == ((ids[0], ids[-1]) if ids else (None, None))
    return ids


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_listed_session_is_the_retrieved_one_without_its_count(prefix: str) -> None:
    """The same fields with the same values, after use and after a change."""
    clock = FakeClock()
    store = MemoryEventStore(clock=clock, ids=RandomIds())
    async with running_server(clock=clock, store=store) as running:
        await start(running, "s", metadata={"k": "v"}, ttl_s=60, messages=[{"role": "user", "content": "hi"}])
        clock.advance(7)
        await running.chat(session_id="s")
        clock.advance(8)
        await running.http.post(f"{prefix}/sessions/s", json={"metadata": {"k": "w", "l": "x"}})
        (one,) = (await running.http.get(f"{prefix}/sessions")).json()["data"]
        whole = (await running.http.get(f"{prefix}/sessions/s")).json()
        assert Session.model_validate(whole).message_count == 3
        assert one == {**whole, "message_count": None}
        assert (one["updated_at"] - one["created_at"], one["expires_at"] - one["updated_at"]) == (15, 60)


async def test_pages_follow_each_other() -> None:
    """after is the last id of the page before; every session is on one page, the newest first by default."""
    async with running_server() as running:
        ids = [f"s{number}" for number in range(7)]
        for session_id in ids:
            await start(running, session_id)
        assert await listed(running) == ids[::-1]
        assert await listed(running, order="asc", limit=3) == ids[:3]
        assert await listed(running, order="asc", limit=3, after="s2") == ids[3:6]
        assert await listed(running, limit=3, after="s3") == ["s2", "s1", "s0"]
        assert (await running.http.get("/v1/sessions", params={"limit": 3, "after": "s3"})).json()["has_more"] is False
        assert (await running.http.get("/v1/sessions", params={"limit": 3, "after": "s4"})).json()["has_more"] is True
        assert await listed(running, after="s0") == []
        await running.http.delete("/v1/sessions/s3")
        assert await listed(running, limit=2, after="s3") == ["s2", "s1"], "a page goes on behind a deleted session"


class Item(BaseModel):
    """What openai-python makes of an item of a list."""

    id: str
    object: str


async def test_the_official_clients_pager_walks_our_lists() -> None:
    """openai-python follows pages of sessions and of messages by itself, each item once and in order."""
    async with running_server() as running, running.openai() as client:
        for number in range(7):
            await start(running, f"s{number}", messages=[{"role": "user", "content": "x"}] * 5)
        for path, order, expected in (
            ("/sessions", "asc", 7),
            ("/sessions", "desc", 7),
            ("/sessions/s1/messages", "asc", 5),
        ):
            pages = client.get_api_list(
                path,
                page=AsyncCursorPage[Item],
                model=Item,
                options={"params": {"limit": 2, "order": order}},
            )
            items = [item async for item in pages]
            assert len({item.id for item in items}) == len(items) == expected
            if path == "/sessions":
                ids = [f"s{number}" for number in range(7)]
                assert [item.id for item in items] == (ids if order == "asc" else ids[::-1])


async def test_filters_narrow_together() -> None:
    """Metadata, several pairs of it, keys with brackets and without characters, owner, status, and times."""
    clock = FakeClock()
    store = MemoryEventStore(clock=clock, ids=RandomIds())
    async with running_server(clock=clock, store=store) as running:
        await start(running, "a", metadata={"app": "chat", "env": "dev"})
        clock.advance(10)
        await start(running, "b", metadata={"app": "chat", "env": "prod", "a[b]": "=&", "": "empty"})
        created = (await running.http.get("/v1/sessions/b")).json()["created_at"]
        clock.advance(10)
        await start(running, "c", metadata={"app": "mail"})
        await running.http.delete("/v1/sessions/c")
        assert await listed(running, **{"metadata[app]": "chat"}) == ["b", "a"]
        assert await listed(running, **{"metadata[app]": "chat", "metadata[env]": "dev"}) == ["a"]
        assert await listed(running, **{"metadata[a[b]]": "=&"}) == await listed(running, **{"metadata[]": "empty"})
        assert await listed(running, **{"metadata[app]": "mail"}) == []
        assert await listed(running, **{"metadata[app]": "mail"}, status="deleted") == ["c"]
        assert await listed(running, status="expired") == []
        assert await listed(running, owner="local") == ["b", "a"]
        assert await listed(running, owner="nobody") == []
        assert await listed(running, created_after=created) == ["b"]
        assert await listed(running, created_before=created) == ["a"]
        assert await listed(running, created_before=created + 1) == ["b", "a"]
        assert await listed(
            running, created_after="2023-11-14T22:13:30Z", created_before="2023-11-14T23:13:31+01:00"
        ) == ["b"]


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("limit=0", "invalid_value", "limit"),
        ("limit=101", "invalid_value", "limit"),
        ("order=newest", "invalid_value", "order"),
        ("status=absent", "invalid_value", "status"),
        ("after=nowhere", "invalid_value", "after"),
        ("after=%00", "invalid_value", "after"),
        ("after=..%2F..", "invalid_value", "after"),
        ("metadata=x", "unknown_parameter", "metadata"),
        ("metadata[k=x", "unknown_parameter", "metadata[k"),
        ("metadata[k]=1&metadata[k]=2", "invalid_value", "metadata[k]"),
        ("metadata[k%00]=1", "invalid_value", "metadata[k\\0]"),
        ("metadata[k]=%00", "invalid_value", "metadata[k]"),
        (f"metadata[{'k' * 65}]=1", "invalid_value", "metadata"),
        (f"metadata[k]={'v' * 513}", "invalid_value", "metadata"),
        ("&".join(f"metadata[{number}]=1" for number in range(17)), "invalid_value", "metadata"),
        ("created_after=yesterday", "invalid_value", "created_after"),
        ("created_after=2026-01-01T00:00:00", "invalid_value", "created_after"),
        ("created_before=1700000000000", "invalid_value", "created_before"),
        ("before=x", "unknown_parameter", "before"),
        ("owner=", "invalid_value", "owner"),
    ],
)
async def test_a_wrong_query_is_refused(query: str, code: str, param: str) -> None:
    """No filter is ignored: a list that is longer than asked for would be taken for the truth."""
    async with running_server() as running:
        await start(running, "s", metadata={"k": "1"})
        answer = await running.http.get(f"/v1/sessions?{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
        assert answer.json()["error"]["param"] == param


async def test_everybody_lists_their_own_and_auditors_all() -> None:
    """Another's sessions are neither listed nor a place to page from; another tenant's do not exist."""
    store = MemoryEventStore(clock=FakeClock(), ids=RandomIds())
    async with running_server(principal=ANN, store=store) as running:
        await start(running, "anns")
    async with running_server(principal=BOB, store=store) as running:
        await start(running, "bobs")
        assert await listed(running) == await listed(running, owner="bob") == ["bobs"]
        refused = await running.http.get("/v1/sessions", params={"owner": "ann"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
        blind = await running.http.get("/v1/sessions", params={"after": "anns"})
        unknown = await running.http.get("/v1/sessions", params={"after": "nones"})
        assert blind.status_code == unknown.status_code == 400
        assert blind.text.replace("anns", "nones") == unknown.text
    async with running_server(principal=AUDITOR, store=store) as running:
        assert await listed(running) == ["bobs", "anns"]
        assert await listed(running, owner="ann") == ["anns"]
    async with running_server(principal=STRANGER, store=store) as running:
        assert await listed(running) == []


async def test_a_walk_over_a_thousand_sessions_misses_none() -> None:
    """While others are started and deleted all the time, what stays is seen exactly once, in either order."""
    async with running_server() as running:
        staying = [f"s{number}" for number in range(1000)]
        for batch in range(0, 1000, 50):
            await asyncio.gather(*(start(running, session_id) for session_id in staying[batch : batch + 50]))
        done = asyncio.Event()

        async def churn(number: int) -> int:
            rounds = 0
            while not done.is_set():
                await start(running, f"x{number}-{rounds}")
                if rounds >= 3:
                    await running.http.delete(f"/v1/sessions/x{number}-{rounds - 3}")
                rounds += 1
            return rounds

        churning = [asyncio.create_task(churn(number)) for number in range(4)]
        for order in ("asc", "desc"):
            seen: list[str] = []
            query: dict[str, Any] = {"order": order, "limit": 100}
            while True:
                page = (await running.http.get("/v1/sessions", params=query)).json()
                seen += [session["id"] for session in page["data"]]
                if not page["has_more"] or len(seen) > 5000:
                    break
                query["after"] = page["last_id"]
            assert len(seen) == len(set(seen))
            assert set(staying) <= set(seen)
        done.set()
        assert min(await asyncio.gather(*churning)) > 3
