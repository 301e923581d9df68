"""/v1/webhooks: what is asked and answered; what is sent is in tests/integration/test_webhooks.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manent.domain.access import LOCAL_OPERATOR, Scope
from tests.support.http import running_server

ASKED = {"url": "https://receiver.example/hook", "events": ["SessionStarted"]}


async def test_a_webhook_from_its_making_to_its_removal() -> None:
    """The secret is shown when it is made or changed, and never again."""
    async with running_server() as server:
        made = await server.http.post("/v1/webhooks", json=ASKED)
        assert made.status_code == 201
        webhook = made.json()
        secret, path = webhook.pop("secret"), f"/v1/webhooks/{webhook['id']}"
        assert secret.startswith("whsec_")
        assert (await server.http.get("/v1/webhooks")).json()["data"] == [webhook]
        shown = (await server.http.get(path)).json()
        assert {name: shown[name] for name in webhook} == webhook
        changed = (await server.http.post(path, json={"enabled": False, "content": True})).json()
        assert changed == {**webhook, "enabled": False, "content": True}
        rotated = (await server.http.post(f"{path}/rotate")).json()
        assert rotated["secret"] not in {secret, ""}
        assert (await server.http.delete(path)).json() == {
            "id": webhook["id"],
            "object": "webhook.deleted",
            "deleted": True,
        }
        assert (await server.http.get(path)).json()["error"]["code"] == "webhook_not_found"
        types = [entry.header.type for entry in await server.log()]
        assert types == ["WebhookCreated", "WebhookChanged", "WebhookSecretRotated", "WebhookDeleted"]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, "url"),
        ({**ASKED, "url": "http://receiver.example/"}, "url"),
        ({**ASKED, "url": ""}, "url"),
        ({**ASKED, "events": ["SessionStartd"]}, "events"),
        ({**ASKED, "events": "SessionStarted"}, "events"),
        ({**ASKED, "content": "yes"}, "content"),
        ({**ASKED, "secret": "mine"}, "secret"),
    ],
)
async def test_a_request_that_cannot_be_is_told_why(asked: dict[str, object], param: str) -> None:
    """400, with the parameter; nothing is recorded."""
    async with running_server() as server:
        answer = await server.http.post("/v1/webhooks", json=asked)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert await server.log() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/wh_1"),
        ("POST", "/wh_1/rotate"),
        ("DELETE", "/wh_1"),
        ("GET", "/wh_1/dead_letters"),
        ("POST", "/wh_1/dead_letters/1/redeliver"),
    ],
)
async def test_webhooks_are_for_administrators(method: str, path: str) -> None:
    """Others are refused, whether or not there is one; an administrator is told that there is none."""
    nobody = replace(LOCAL_OPERATOR, scopes=frozenset(Scope) - {Scope.ADMIN})
    async with running_server(principal=nobody) as server:
        answer = await server.http.request(method, f"/v1/webhooks{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
    async with running_server() as server:
        answer = await server.http.request(method, f"/v1/webhooks{path}")
        assert answer.status_code == (404 if path else 200)
