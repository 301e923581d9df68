"""Every route of the table, tried by everybody: what is refused, and how. A new route falls into it by itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from manent.adapters.http.route import Route
from manent.adapters.http.routes import ROUTES
from manent.domain.access import AUDITED, Scope
from manent.domain.login_guard import LoginGuard
from tests.support.access import Door, admin, bearer, door, guarded_server
from tests.support.http import USER, Running

CANARY = "violet-heron"
SESSION = "anns-session"
CLIENT = (Scope.CHAT, Scope.SESSIONS, Scope.MODELS_READ, Scope.EVENTS_READ)
OWNED = frozenset({"session_id", "a", "b", "completion_id", "message_id", "position", "file_id", "batch_id"})
INTO_SESSION = {"model": "default", "messages": [USER], "session_id": SESSION, "session_mode": "append"}
BODIES: Mapping[str, Any] = {
    "createChatCompletion": INTO_SESSION,
    "createEmbeddings": {"model": "default", "input": "x"},
    "rerunSession": {"from_version": 1},
    "updateChatCompletion": {"metadata": {"k": "v"}},
    "updateSession": {"metadata": {"k": "v"}},
    "createSessionMessage": {"role": "user", "content": "x"},
    "createKey": {"name": "new", "subject": "new"},
}
QUERIES: Mapping[str, Mapping[str, int]] = {
    "streamEvents": {"max_position": 3},
    "proveInclusion": {"position": 1},
    "proveConsistency": {"old": 1},
}
OWNERS_ONLY = frozenset(
    {
        "createChatCompletion",
        "updateSession",
        "deleteSession",
        "createSessionMessage",
        "resumeChatCompletion",
        "retrieveChatCompletion",
        "updateChatCompletion",
        "deleteChatCompletion",
        "listChatCompletionMessages",
        "retrieveFile",
        "downloadFile",
        "deleteFile",
        "retrieveBatch",
        "cancelBatch",
    }
)
"""What not even an administrator does with what is another's; auditors, where they have the scope for it."""

KNOWN_TAGS = frozenset({"Sessions", "Replay", "Keys", "Models", "Chat", "Files", "Batches"})
KNOWN = frozenset(route.name for route in ROUTES if route.tag in KNOWN_TAGS) - {"createBatch"}
"""Of these the bodies and ids that are sent here are right, so that nothing but a right can be in the way."""

REFUSED = frozenset({401, 403, 404})


@dataclass(frozen=True, kw_only=True)
class World:
    """A server with somebody's conversation in it, ids of all that is hers, and everybody's keys."""

    running: Running
    ids: Mapping[str, str]
    keys: Mapping[str, str | None]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncGenerator[World, None]:
    """Ann has a conversation; others have keys, one expired and one revoked."""
    at = door(guard=LoginGuard(failures_max=10**6))
    spare = await at.key("spare")
    keys = await _keys(at)
    async with guarded_server(at) as running:
        headers = bearer(keys["owner"] or "")
        said = {**INTO_SESSION, "messages": [{"role": "user", "content": CANARY}]}
        chat = await running.http.post("/v1/chat/completions", json=said, headers=headers)
        assert chat.status_code == 200, chat.text
        messages = await running.http.get(f"/v1/sessions/{SESSION}/messages", headers=headers)
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": said}
        brought = {"file": ("in.jsonl", json.dumps(line).encode())}
        file = await running.http.post("/v1/files", data={"purpose": "batch"}, files=brought, headers=headers)
        wanted = {"input_file_id": file.json()["id"], "endpoint": line["url"], "completion_window": "24h"}
        batch = await running.http.post("/v1/batches", json=wanted, headers=headers)
        (position,) = [entry.header.position for entry in await running.log("SessionStarted")]
        ids = {
            "session_id": SESSION,
            "a": SESSION,
            "b": SESSION,
            "completion_id": chat.json()["id"],
            "message_id": messages.json()["data"][0]["id"],
            "position": str(position),
            "file_id": file.json()["id"],
            "batch_id": batch.json()["id"],
            "model_id": "scripted",
            "key_id": spare.key.key_id,
            "name": "page.js",
        }
        yield World(running=running, ids=ids, keys=keys)


async def _keys(at: Door) -> dict[str, str | None]:
    expired = await at.key("ann", *CLIENT, expires_at_us=at.clock.now_us() + 1)
    revoked = await at.key("ann", *CLIENT)
    await at.keys.revoke(admin(), revoked.key.key_id)
    at.clock.advance(1)
    made = {
        "owner": await at.key("ann", *CLIENT),
        "neighbor": await at.key("bob", *CLIENT),
        "auditor": await at.key("eve", Scope.AUDIT),
        "admin": await at.key("boss", Scope.ADMIN),
        "stranger": await at.key("ann", Scope.ADMIN, tenant="other"),
        "models": await at.key("ann", Scope.MODELS_READ),
        "chats": await at.key("ann", Scope.CHAT),
    }
    return {
        "nobody": None,
        "guesser": "mnt_" + "0" * 64,
        "expired": expired.secret.text,
        "revoked": revoked.secret.text,
        **{who: issued.secret.text for who, issued in made.items()},
    }


def test_every_route_says_who_may_come() -> None:
    """A route has a scope, or is open to everybody on purpose."""
    for route in ROUTES:
        assert (route.scope is not None) or route.public or route.opened_by == "docs", route.name
        assert not (route.public and route.scope is not None), route.name


PRINCIPALS: Sequence[str] = (
    "nobody",
    "guesser",
    "expired",
    "revoked",
    "wrong scope",
    "neighbor",
    "stranger",
    "auditor",
    "admin",
    "owner",
)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_matrix(world: World, record_property: Callable[[str, object], None]) -> None:
    """Nobody comes in without a credential that holds and its scope; what is another's is not there."""
    counted: Counter[str] = Counter()
    wrong: list[str] = []
    # What ends things comes last, and its owner last of all.
    for route in sorted(ROUTES, key=lambda route: route.method == "DELETE"):
        for who in PRINCIPALS:
            status, text = await _tried(world, route, who)
            wanted = expected(route, who)
            if status == 500 or (status not in wanted if wanted else _is_refused(route, status)):
                wrong.append(f"{who} {route.method} {route.path}: {status}, expected {sorted(wanted) or 'entry'}")
            if who not in {"owner", "auditor", "admin"} and CANARY in text:
                wrong.append(f"{who} {route.method} {route.path} told what Ann said")
            counted["tried"] += 1
            counted["refused"] += bool(wanted)
    assert not wrong, "\n".join(wrong)
    assert counted["refused"] > 5 * sum(not route.is_open({"docs"}) for route in ROUTES)
    for name, count in counted.items():
        record_property(name, count)
    print(dict(counted))  # noqa: T201 (the figures, for whoever asks for them with -rP)


async def _tried(world: World, route: Route, who: str) -> tuple[int, str]:
    if who == "wrong scope":
        who = "chats" if route.scope in {Scope.MODELS_READ, Scope.MODELS_MANAGE} else "models"
    key = world.keys[who]
    body = BODIES.get(route.name, {})
    if who == "stranger":  # a tenant has its own names: the same one would start a conversation there
        body = {name: value for name, value in body.items() if name != "session_id"}
    path = re.sub(r"<(\w+):\w+>", lambda match: world.ids.get(match[1], "unknown"), route.paths[0])
    answer = await world.running.http.request(
        route.method,
        path,
        params=QUERIES.get(route.name),
        json=body if route.method == "POST" else None,
        headers={} if key is None else bearer(key),
    )
    return answer.status_code, answer.text


def expected(route: Route, who: str) -> frozenset[int]:
    """The statuses that ``who`` must be refused with; none where it must be let in."""
    if route.is_open({"docs"}):
        return frozenset()
    if who in {"nobody", "guesser", "expired", "revoked"}:
        return frozenset({401})
    if who == "wrong scope" or not _has_scope(route, who):
        return frozenset({403})
    return frozenset({404} if route.name in KNOWN else {400, 404}) if _is_hidden(route, who) else frozenset()


def _has_scope(route: Route, who: str) -> bool:
    if who in {"admin", "stranger"}:
        return True
    if who == "auditor":
        return route.scope is Scope.AUDIT or (route.reads and route.scope in AUDITED)
    return route.scope in CLIENT


def _is_hidden(route: Route, who: str) -> bool:
    """Whether it is about something that is not there for ``who``."""
    names = set(re.findall(r"<(\w+):", route.path))
    is_anns = bool(names & OWNED) or (route.name == "createChatCompletion" and who != "stranger")
    return {
        "neighbor": is_anns,
        "stranger": is_anns or "key_id" in names,
        "admin": route.name in OWNERS_ONLY,
        "auditor": route.name in OWNERS_ONLY,
    }.get(who, False)


def _is_refused(route: Route, status: int) -> bool:
    """Whether somebody who must be let in was not; of a route whose ids are not known here 404 says nothing."""
    return status in (REFUSED if route.name in KNOWN - {"retrieveRerun"} else REFUSED - {404})
