"""Whose prefix cache a completion may use, what of it may lie on disk, and when it is forgotten."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from manent.domain.caching import CacheScope
from manent.domain.generation import GenerationRequest, GenerationResult, TextDelta
from manent.domain.usecases.accept_completion import ChatCommand
from tests.support.conversation import ANN, BOB, user
from tests.support.manent import World, ask, make_world


class _Watched:
    """What an engine is asked for, by way of another one."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.scopes: list[CacheScope | None] = []
        self.forgotten: list[tuple[str, str | None]] = []
        generate = world.engine.generate

        def watched(request: GenerationRequest) -> AsyncGenerator[TextDelta | GenerationResult, None]:
            self.scopes.append(request.cache)
            return generate(request)

        async def forget(tenant: str, conversation: str | None = None) -> None:
            self.forgotten.append((tenant, conversation))

        patch.setattr(world.engine, "generate", watched)
        patch.setattr(world.engine, "forget", forget)


@pytest.mark.parametrize(
    ("command", "record", "scope"),
    [
        (ask(user("hi"), session_id="s"), "metadata", CacheScope(tenant="acme", conversation="s", durable=True)),
        (ask(user("hi")), "metadata", CacheScope(tenant="acme")),
        (ask(user("hi"), store_content=True), "metadata", CacheScope(tenant="acme", durable=True)),
        (ask(user("hi")), "content", CacheScope(tenant="acme", durable=True)),
        (ask(user("hi"), principal=BOB), "metadata", CacheScope(tenant=BOB.tenant)),
    ],
    ids=["in a session", "without", "stored", "all is recorded", "somebody else's"],
)
async def test_only_what_is_recorded_may_outlive_the_process(
    command: ChatCommand, record: str, scope: CacheScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scope is the tenant's; a session names the conversation; disk is for content that the log holds too."""
    world = make_world(record=record)
    watched = _Watched(world, monkeypatch)
    await world.manent.complete_chat.start(command).generated()
    assert watched.scopes == [scope]


async def test_a_deleted_session_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its deletion is recorded, the engine drops what it keeps of it."""
    world = make_world()
    watched = _Watched(world, monkeypatch)
    await world.manent.complete_chat.start(ask(user("hi"), session_id="s")).generated()
    await world.manent.manage_sessions.delete(ANN, "s", request_id=None)
    assert watched.forgotten == [("acme", "s")]
