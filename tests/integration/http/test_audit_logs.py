"""The audit log in the words of OpenAI's administration API, read by openai-python's own resource."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.admin.organization import AuditLogListResponse

from manent.app.system import RandomIds
from manent.domain.access import Scope
from manent.domain.usecases.identify import Identify
from manent.domain.usecases.record_logins import RecordFailedLogins
from tests.support.access import Door, admin, bearer, door, grant, guarded_server
from tests.support.http import USER, Running

START_S = 1_700_000_000


@dataclass(frozen=True, kw_only=True)
class World:
    """A server with a history of keys, deletions and failed logins, ten seconds between two of them."""

    at: Door
    running: Running
    failures: RecordFailedLogins
    anns: str
    auditor: str

    def openai(self) -> AsyncOpenAI:
        """The official client of an administrator."""
        return AsyncOpenAI(base_url=f"{self.running.address}/v1", admin_api_key=self.auditor, max_retries=0)

    async def entries(self, **query: Any) -> list[AuditLogListResponse]:
        """All entries, as the client pages through them."""
        async with self.openai() as client:
            return [one async for one in client.admin.organization.audit_logs.list(**query)]


@pytest_asyncio.fixture
async def world() -> AsyncGenerator[World]:
    """Ann's key is made, changed, rotated; she chats and deletes; a stranger guesses; her key is revoked and tried."""
    at = door()
    failures = RecordFailedLogins(store=at.store, clock=at.clock, ids=RandomIds())
    vars(at)["identify"] = Identify(
        keys=at.table, secrets=at.secrets, clock=at.clock, nodes=at.nodes, failures=failures
    )
    made = await at.key("ann@example.com")
    auditor = (await at.key("eve", Scope.AUDIT)).secret.text
    async with guarded_server(at) as running:
        at.clock.advance(10)
        key_id = made.key.key_id
        await at.keys.change(admin(), key_id, lambda _: grant("ann@example.com", Scope.CHAT, Scope.SESSIONS))
        at.clock.advance(10)
        headers = bearer(made.secret.text)
        body = {"model": "default", "messages": [USER], "session_id": "anns"}
        assert (await running.http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
        assert (await running.http.delete("/v1/sessions/anns", headers=headers)).status_code == 200
        at.clock.advance(10)
        for _ in range(3):
            await running.http.get("/v1/models", headers=bearer("mnt_" + "0" * 64))
        await at.keys.revoke(admin(), key_id)
        at.clock.advance(10)
        await running.http.get("/v1/models", headers=headers)
        await failures.record()
        yield World(at=at, running=running, failures=failures, anns=key_id, auditor=auditor)


async def test_entries_are_openais(world: World) -> None:
    """Newest first, each with the details of its type; what another tenant's log says is not among them."""
    entries = await world.entries()
    assert [(one.type, one.effective_at - START_S) for one in entries] == [
        ("login.failed", 40),
        ("api_key.deleted", 30),
        ("resource.deleted", 20),
        ("api_key.updated", 10),
        ("api_key.created", 0),
        ("api_key.created", 0),
    ]
    login, deleted, resource, updated, _, created = entries
    assert login.login_failed is not None
    assert (login.login_failed.error_code, login.login_failed.error_message) == (
        "invalid_api_key",
        "the API key was revoked",
    )
    assert login.actor is not None
    assert login.actor.session is not None
    assert login.actor.session.ip_address == "127.0.0.1"
    assert deleted.api_key_deleted is not None
    assert deleted.api_key_deleted.id == world.anns
    assert resource.to_dict()["resource.deleted"] == {"id": "anns"}
    assert resource.actor is not None
    assert resource.actor.session is not None
    assert resource.actor.session.user is not None
    assert resource.actor.session.user.email == "ann@example.com"
    assert updated.api_key_updated is not None
    assert updated.api_key_updated.changes_requested is not None
    assert updated.api_key_updated.changes_requested.scopes == ["chat", "sessions"]
    assert created.api_key_created is not None
    assert created.api_key_created.data is not None
    assert created.api_key_created.data.scopes == ["chat", "sessions", "models:read"]
    assert created.project is not None
    assert created.project.id == "acme"


FILTERS: Mapping[str, tuple[dict[str, Any], list[str]]] = {
    "a type": ({"event_types": ["api_key.created"]}, ["api_key.created"] * 2),
    "types": ({"event_types": ["login.failed", "api_key.deleted"]}, ["login.failed", "api_key.deleted"]),
    "a type that never happens": ({"event_types": ["invite.sent"]}, []),
    "an actor": ({"actor_ids": ["ann@example.com", "nobody"]}, ["resource.deleted"]),
    "a mail address": ({"actor_emails": ["ann@example.com"]}, ["resource.deleted"]),
    "a resource": ({"resource_ids": ["anns"]}, ["resource.deleted"]),
    "of another resource": ({"resource_ids": ["anns"], "actor_ids": ["boss"]}, []),
    "after": ({"effective_at": {"gt": START_S + 20}}, ["login.failed", "api_key.deleted"]),
    "from": ({"effective_at": {"gte": START_S + 30}}, ["login.failed", "api_key.deleted"]),
    "before": ({"effective_at": {"lt": START_S + 10}}, ["api_key.created"] * 2),
    "between": ({"effective_at": {"gte": START_S + 10, "lte": START_S + 20}}, ["resource.deleted", "api_key.updated"]),
    "own project": ({"project_ids": ["acme", "other"], "event_types": ["api_key.deleted"]}, ["api_key.deleted"]),
    "another project": ({"project_ids": ["other"]}, []),
    "tenants": ({"tenant_only": True}, []),
}


async def test_filters_are_openais(world: World) -> None:
    """Each narrows; all of them must match; a key's own history is found by its id."""
    for name, (query, types) in FILTERS.items():
        assert [one.type for one in await world.entries(**query)] == types, name
    of_key = [one.type for one in await world.entries(resource_ids=[world.anns])]
    assert of_key == ["api_key.deleted", "api_key.updated", "api_key.created"]
    assert [one.type for one in await world.entries(actor_ids=[world.anns])] == ["login.failed"]


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_pages_go_both_ways(world: World, limit: int) -> None:
    """The client's own paging misses and repeats nothing; ``before`` leads back."""
    whole = [one.id for one in await world.entries()]
    assert [one.id for one in await world.entries(limit=limit)] == whole
    async with world.openai() as client:
        logs = client.admin.organization.audit_logs
        back = await logs.list(before=whole[3], limit=limit)
        assert [one.id for one in back.data] == whole[:3][-limit:]
        assert back.has_more == (limit < 3)
        between = await logs.list(after=whole[0], before=whole[4], limit=100)
        assert [one.id for one in between.data] == whole[1:4]


REFUSED: Mapping[str, str] = {
    "limit=101": "limit",
    "event_types[]=Key Created": "event_types",
    "effective_at[eq]=1": "effective_at[eq]",
    "effective_at[gt]=now": "effective_at[gt]",
    "after=42": "after",
    "before=evt_1": "before",
    "purpose=x": "purpose",
    "&".join(f"actor_ids[]={number}" for number in range(20)): "",
}


async def test_what_is_refused_is_named(world: World) -> None:
    """Wrong values, more than a page may cost, and whoever has not the scope."""
    headers = bearer(world.auditor)
    for query, param in REFUSED.items():
        refused = await world.running.http.get(f"/v1/organization/audit_logs?{query}", headers=headers)
        assert (refused.status_code, refused.json()["error"]["param"] or "") == (400, param), query
    chats = (await world.at.key("bob")).secret.text
    refused = await world.running.http.get("/v1/organization/audit_logs", headers=bearer(chats))
    assert refused.status_code == 403
    others = await world.running.http.get("/v1/organization/users", headers=headers)
    assert others.json()["error"]["code"] == "unsupported_endpoint"


async def test_readings_of_others_are_recorded(world: World) -> None:
    """Once for a page that tells of somebody's session; what happens to keys is nobody's conversation."""
    await world.entries(event_types=["api_key.created", "login.failed"])
    assert await world.running.log("AuditRead") == []
    await world.entries(event_types=["resource.deleted"])
    (read,) = await world.running.log("AuditRead")
    payload = json.loads(read.payload or b"")
    assert (payload["reader"], payload["owner"], payload["count"]) == ("eve", "ann@example.com", 1)


async def test_guesses_are_the_default_tenants(world: World) -> None:
    """Whoever presents what never was a key belongs to no tenant: the server's own sees it, once for all three."""
    (_, guessed) = sorted(await world.running.log("LoginFailed"), key=lambda entry: entry.header.tenant)
    payload = json.loads(guessed.payload or b"")
    assert guessed.header.tenant == "default"
    assert (payload["count"], payload["reason"], payload["address"]) == (3, "there is no such API key", "127.0.0.1")
    assert "mnt_" not in json.dumps(payload)
