"""Recorded conversations for tests of replays: a world with two models, turns in it, and fresh eyes on its log."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count

from manent.adapters.http.replay_export import event_line
from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from manent.adapters.projections.lru import LruContextCache
from manent.domain.access import Principal, Scope
from manent.domain.events import CompletionGenerated
from manent.domain.generation import GenerationRequest, RequestedParameters
from manent.domain.replay_events import Fork, RerunStarted
from manent.domain.session import SessionState
from manent.domain.usecases.replays import Recorded
from manent.domain.usecases.rerun_session import RerunStatus
from manent.domain.usecases.sessions import Sessions
from tests.support.conversation import ANN, NOW_US, user
from tests.support.manent import World, ask, make_world

AUDITOR = Principal(tenant="acme", subject="eve", scopes=frozenset({Scope.AUDIT}))
OTHER_CARD = replace(SCRIPTED_CARD, model_id="other", aliases=("another",))

BEGUN = RerunStarted(
    session_id="s",
    rerun_id="rerun_1",
    source=Fork(session_id="p", version=9),
    from_version=1,
    model_asked=None,
    parameters=RequestedParameters(),
    turns=1,
    started_by="ann",
    started_at_us=NOW_US,
)


def world_of_two_models(**settings: object) -> World:
    """A world whose answers are numbered and name their model: ``scripted 1``, ``other 2``."""
    numbers = count(1)

    def numbered(request: GenerationRequest) -> Script:
        return Script(pieces=(request.model_id, " ", str(next(numbers))))

    return make_world(ScriptedEngine(numbered, cards=(SCRIPTED_CARD, OTHER_CARD)), **settings)


async def talk(
    world: World, *texts: str, session_id: str = "s", parameters: RequestedParameters | None = None
) -> CompletionGenerated:
    """Ann's turns in a session, one after another; the last answer."""
    for text in texts:
        command = ask(user(text), session_id=session_id, parameters=parameters)
        generated = await world.manent.complete_chat.start(command).generated()
    return generated


def recorded(world: World) -> Recorded:
    """What analysts do with the log alone."""
    return world.manent.replays.recorded


async def ended(world: World, session_id: str = "r") -> RerunStatus:
    """The rerun once it is over."""
    async with asyncio.timeout(5):
        while True:
            status = await world.manent.replays.rerun.status(ANN, session_id)
            if status.ended is not None:
                return status
            await asyncio.sleep(0)


async def folded(world: World, session_id: str) -> SessionState:
    """A session as somebody sees it who has nothing cached."""
    return await Sessions(world.store, LruContextCache(budget_bytes=0)).load("acme", session_id)


def texts_of(state: SessionState) -> list[str]:
    """What was said."""
    return [message.text for message in state.messages]


async def events_file(world: World, session_id: str, principal: Principal = ANN) -> bytes:
    """A session's export as events."""
    export = await recorded(world).export.open(principal, session_id)
    pages = recorded(world).export.events(export)
    return b"".join([event_line(entry) async for page in pages for entry in page])
