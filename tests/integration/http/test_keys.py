"""Keys over HTTP: their life, what they allow of models, and what is written down of who reads what of others."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from manent.domain.access import Scope
from manent.domain.admission import Priority, QueuePlace
from manent.domain.errors import ModelUnavailable
from manent.domain.login_guard import LoginGuard
from manent.domain.usecases.identify import Anonymous
from manent.domain.waiting import Gone
from tests.support.access import Door, bearer, door, guarded_server
from tests.support.http import USER, Running

CARDS = tuple(
    SCRIPTED_CARD.__class__(**{**_fields, "model_id": name, "aliases": aliases})
    for name, aliases in (("small", ("default", "s")), ("large", ("l",)), ("secret", ()))
    for _fields in [{field: getattr(SCRIPTED_CARD, field) for field in SCRIPTED_CARD.__dataclass_fields__}]
)


class Moody(ScriptedEngine):
    """An engine of three models, of which some cannot be used."""

    def __init__(self, *unusable: str) -> None:
        super().__init__(cards=CARDS)
        self.unusable = set(unusable)

    @asynccontextmanager
    async def place(
        self,
        model: str,
        *,
        priority: Priority = Priority.INTERACTIVE,
        alone: bool = False,
        gone: Gone | None = None,
    ) -> AsyncGenerator[QueuePlace, None]:
        """A place, unless the model cannot be used."""
        if self.resolve(model).model_id in self.unusable:
            raise ModelUnavailable(f"{model} is suspended")
        async with super().place(model, priority=priority, alone=alone, gone=gone) as place:
            yield place


async def answered(running: Running, secret: str, model: str) -> tuple[int, str]:
    """The status of a chat, and the model that answered or what was wrong."""
    body = {"model": model, "messages": [USER]}
    answer = await running.http.post("/v1/chat/completions", json=body, headers=bearer(secret))
    found = answer.json()
    return answer.status_code, found["model"] if answer.is_success else found["error"]["code"]


async def test_the_life_of_a_key() -> None:
    """Made, listed, shown, changed, rotated and revoked by an administrator; its secret is told twice in all."""
    at = door()
    boss = bearer((await at.key("boss", Scope.ADMIN)).secret.text)
    async with guarded_server(at) as running:
        http = running.http
        body = {"name": "web shop", "subject": "shop", "limits": {"running_max": 2}, "expires_in_s": 60}
        made = await http.post("/v1/keys", json=body, headers=boss)
        assert made.status_code == 201
        assert made.headers["cache-control"] == "no-store"
        key = made.json()
        secret, path = key.pop("key"), f"/v1/keys/{key['id']}"
        assert (key["tenant"], key["scopes"]) == ("acme", ["chat", "sessions", "models:read"])
        assert key["limits"]["running_max"] == 2
        assert secret.startswith(key["shown"])
        assert (await http.get("/v1/models", headers={"x-api-key": secret})).status_code == 200
        assert (await http.get(path, headers=boss)).json() == key
        listed = (await http.get("/v1/keys", params={"limit": 1}, headers=boss)).json()
        assert listed["has_more"] is True
        behind = (await http.get("/v1/keys", params={"after": listed["last_id"]}, headers=boss)).json()
        assert [found["id"] for found in behind["data"]] == [key["id"]]
        changed = await http.post(path, json={"scopes": ["chat"], "limits": None}, headers=boss)
        assert changed.json() == {**key, "scopes": ["chat"], "limits": None}
        assert (await http.get("/v1/models", headers={"x-api-key": secret})).status_code == 403
        rotated = (await http.post(f"{path}/rotate", json={"overlap_s": 0}, headers=boss)).json()
        assert rotated["expires_at"] == key["expires_at"]
        assert (await answered(running, secret, "default"))[0] == 401
        assert (await answered(running, rotated["key"], "default"))[0] == 200
        revoked = (await http.post(f"{path}/revoke", json={"reason": "lost"}, headers=boss)).json()
        assert (revoked["status"], revoked["reason"], revoked["revoked_by"]) == ("revoked", "lost", "boss")
        assert (await answered(running, rotated["key"], "default"))[0] == 401
        again = await http.post(path, json={"scopes": ["admin"]}, headers=boss)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "key_revoked")
        written = b"".join(entry.payload or b"" for entry in await running.log())
        assert secret.encode() not in written
        assert rotated["key"].encode() not in written


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"name": "x"}, "missing_required_parameter", "subject"),
        ({"name": "x", "subject": "a b"}, "invalid_value", "subject"),
        ({"name": "x", "subject": "a", "scopes": ["root"]}, "invalid_value", "scopes[0]"),
        ({"name": "x", "subject": "a", "scopes": []}, "invalid_value", "scopes"),
        ({"name": "x", "subject": "a", "tenant": "other"}, "unknown_parameter", "tenant"),
        ({"name": "x", "subject": "a", "expires_in_s": 0}, "invalid_value", "expires_in_s"),
        ({"name": "x", "subject": "a", "limits": {"tokens": 1}}, "invalid_value", "limits.tokens"),
        ({"name": "x", "subject": "a", "key": "mnt_mine"}, "unknown_parameter", "key"),
    ],
)
async def test_a_wrong_key_request_is_refused(body: dict[str, Any], code: str, param: str) -> None:
    """It says what is wrong; a tenant or a secret of one's own cannot be asked for."""
    at = door()
    boss = bearer((await at.key("boss", Scope.ADMIN)).secret.text)
    async with guarded_server(at) as running:
        answer = await running.http.post("/v1/keys", json=body, headers=boss)
    assert answer.status_code == 400, answer.text
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)


async def test_a_key_has_its_models() -> None:
    """Others do not exist for it, neither in lists nor in hints; ``default`` and fallbacks are its own."""
    at = door()
    limited = (await at.key("shop", models=("s", "large"), default_model="large", fallback_models=("small",))).secret
    free = (await at.key("ann", fallback_models=("secret",))).secret
    engine = Moody()
    async with guarded_server(at, engine=engine) as running:
        http, headers = running.http, bearer(limited.text)
        listed = (await http.get("/v1/models", headers=headers)).json()["data"]
        assert [model["id"] for model in listed] == ["small", "large"]
        hidden = await http.get("/v1/models/secret", headers=headers)
        absent = await http.get("/v1/models/sacred", headers=headers)
        assert hidden.status_code == absent.status_code == 404
        assert hidden.text.replace("secret", "sacred") == absent.text
        assert await answered(running, limited.text, "secret") == (404, "model_not_found")
        body = {"model": "secret", "input": "x"}
        assert (await http.post("/v1/embeddings", json=body, headers=headers)).status_code == 404
        assert await answered(running, limited.text, "default") == (200, "large")
        assert await answered(running, limited.text, "s") == (200, "small")
        assert await answered(running, free.text, "default") == (200, "small")
        engine.unusable = {"large"}
        assert await answered(running, limited.text, "large") == (200, "small")
        engine.unusable = {"large", "small"}
        assert await answered(running, limited.text, "large") == (503, "model_unavailable")
        assert await answered(running, free.text, "large") == (200, "secret")


async def test_two_ways_to_present_a_key() -> None:
    """Either header, or both with the same; two that differ, or another scheme, are refused."""
    at = door()
    one, other = (await at.key("ann")).secret.text, (await at.key("ann")).secret.text
    async with guarded_server(at) as running:

        async def status(**headers: str) -> int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = await running.http.get("/v1/models", headers=sent)
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["type"] == "authentication_error"
            return answer.status_code

        assert await status(authorization=f"Bearer {one}") == 200
        assert await status(authorization=f"bearer  {one}") == 200
        assert await status(x_api_key=one) == 200
        assert await status(authorization=f"Bearer {one}", x_api_key=one) == 200
        assert await status(authorization=f"Bearer {one}", x_api_key=other) == 401
        assert await status(authorization=f"Basic {one}") == 401
        assert await status(authorization=one) == 401
        assert await status() == 401
        assert (await running.http.get("/health/live")).status_code == 200
        assert (await running.http.get("/openapi.json")).status_code == 200


async def test_settings_open_parts() -> None:
    """The documentation or the list of models; nothing else, and neither unless it is said."""
    at = door(anonymous=Anonymous.NONE)
    for parts, answers in ((("models",), (200, 200, 401)), ((), (401, 401, 401)), (("docs",), (401, 401, 200))):
        async with guarded_server(at, limits=HttpLimits(public=frozenset(parts))) as running:
            paths = ("/v1/models", "/v1/models/scripted", "/docs", "/v1/models/memory", "/v1/sessions", "/health/live")
            found = [(await running.http.get(path)).status_code for path in paths]
            assert found == [*answers, 401, 401, 200]


async def reads(running: Running) -> list[dict[str, Any]]:
    """What was written down of readings."""
    return [json.loads(entry.payload or b"null") for entry in await running.log("AuditRead")]


async def _conversation(at: Door, running: Running) -> tuple[str, str]:
    ann = (await at.key("ann", Scope.CHAT, Scope.SESSIONS, Scope.EVENTS_READ)).secret.text
    body = {"model": "default", "messages": [USER], "session_id": "anns"}
    chat = await running.http.post("/v1/chat/completions", json=body, headers=bearer(ann))
    return ann, chat.json()["id"]


async def test_what_auditors_read_of_others_is_written_down() -> None:
    """Once for each request, with who, what, whose and why, before it is answered; one's own is nobody's business."""
    at = door()
    eve = {**bearer((await at.key("eve", Scope.AUDIT)).secret.text), "x-access-purpose": "complaint 7"}
    async with guarded_server(at) as running:
        ann, completion_id = await _conversation(at, running)
        stored = {"model": "default", "messages": [USER], "store": True}
        alone = (await running.http.post("/v1/chat/completions", json=stored, headers=bearer(ann))).json()["id"]
        resumed = await running.http.get(f"/v1/chat/completions/{alone}/stream", headers=eve)
        assert (resumed.status_code, await reads(running)) == (404, [])
        seen = [
            (f"/v1/chat/completions/{alone}/context", f"completion-{alone}", 1),
            ("/v1/sessions/anns", "session-anns", 1),
            ("/v1/sessions/anns?as_of_version=1", "session-anns", 1),
            ("/v1/sessions/anns/messages", "session-anns", 1),
            ("/v1/sessions/anns/export", "session-anns", 1),
            (f"/v1/chat/completions/{completion_id}/context", "session-anns", 1),
            ("/v1/sessions", "list of sessions from anns to anns", 1),
            ("/v1/events?stream=session-anns", None, 5),
        ]
        for number, (path, resource, count) in enumerate(seen, start=1):
            answer = await running.http.get(path, headers={**eve, "x-request-id": f"r{number}"})
            assert answer.status_code == 200, answer.text
            noted = await reads(running)
            assert len(noted) == number, path
            last = noted[-1]
            assert (last["reader"], last["owner"], last["purpose"]) == ("eve", "ann", "complaint 7")
            assert resource is None or last["resource"] == resource
            assert last["count"] == count or resource is None
            header = (await running.log("AuditRead"))[-1].header
            assert (header.actor, header.tenant, header.request_id) == ("eve", "acme", f"r{number}")
        for path in (
            "/v1/sessions/anns",
            "/v1/sessions",
            "/v1/events",
            f"/v1/chat/completions/{completion_id}/context",
        ):
            assert (await running.http.get(path, headers=bearer(ann))).status_code == 200
        assert len(await reads(running)) == len(seen)


async def test_a_tail_is_one_reading_and_an_audit_ends() -> None:
    """However long it follows; and who pages through the log event by event comes to its end."""
    at = door()
    eve = bearer((await at.key("eve", Scope.AUDIT)).secret.text)
    async with guarded_server(at) as running:
        await _conversation(at, running)
        tail = await running.http.get("/v1/events/stream", params={"max_position": 5}, headers=eve)
        assert tail.text.endswith("data: [DONE]\n\n")
        (noted,) = await reads(running)
        assert noted["resource"] == "log from 1 on"
        after, pages = 0, 0
        while True:
            page = (await running.http.get("/v1/events", params={"after": after, "limit": 1}, headers=eve)).json()
            if not page["data"]:
                break
            after, pages = int(page["last_id"]), pages + 1
            assert pages < 60, "an audit that reads what it causes has no end"


async def test_without_the_audit_scope_only_ones_own_events_are_read() -> None:
    """``events:read`` sees what its subject caused, by list, tail and position; others' events are not there."""
    at = door()
    bob = bearer((await at.key("bob", Scope.EVENTS_READ)).secret.text)
    async with guarded_server(at) as running:
        ann, _ = await _conversation(at, running)
        own = (await running.http.get("/v1/events", headers=bearer(ann))).json()["data"]
        assert {event["header"]["actor"] for event in own} == {"ann"}
        assert (await running.http.get("/v1/events", headers=bob)).json()["data"] == []
        position = own[0]["header"]["position"]
        assert (await running.http.get(f"/v1/events/{position}", headers=bearer(ann))).status_code == 200
        assert (await running.http.get(f"/v1/events/{position}", headers=bob)).status_code == 404
        others = await running.http.get("/v1/events", params={"actor": "ann"}, headers=bob)
        assert (others.status_code, others.json()["error"]["param"]) == (403, "actor")


async def test_no_secret_is_written_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a key nor a token that is presented, right or wrong, is in a log line, an event or an answer."""
    at = door(guard=LoginGuard(failures_max=100))
    boss = (await at.key("boss", Scope.ADMIN)).secret.text
    canaries = ["mnt_" + "c0ffee" * 10 + "abcd", "canary.in.atoken", "canary-" * 2000, "plain-canary"]
    told: list[str] = []
    with caplog.at_level(logging.DEBUG):
        async with guarded_server(at) as running:
            for canary in canaries:
                for headers in (
                    {"authorization": f"Bearer {canary}"},
                    {"x-api-key": canary},
                    {"authorization": canary},
                ):
                    answer = await running.http.get("/v1/keys", headers=headers)
                    assert answer.status_code in {401, 431}
                    told.append(answer.text)
            made = await running.http.post("/v1/keys", json={"name": "n", "subject": "s"}, headers=bearer(boss))
            rotated = await running.http.post(f"/v1/keys/{made.json()['id']}/rotate", headers=bearer(boss))
            secrets = [boss, made.json()["key"], rotated.json()["key"]]
            told += [(await running.http.get(path, headers=bearer(boss))).text for path in ("/v1/keys", "/v1/events")]
            told += [str(entry) for entry in await running.log()]
    for secret in [*secrets, "c0ffee", "canary"]:
        assert secret not in caplog.text
        assert not any(secret in text for text in told)
