"""Random families of sessions: forks of forks, turns and edits in all of them, against plain lists."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from manent.domain.messages import Message
from manent.domain.usecases.fork_session import ForkCommand
from manent.domain.usecases.replay import AsOf
from tests.support.conversation import ANN, system, user
from tests.support.manent import World, ask
from tests.support.replays import events_file, folded, recorded, texts_of, world_of_two_models

STEPS = 60


class Family:
    """The sessions of a world, and what each of them should say at each of its versions."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.names = ["s0"]

    async def step(self, number: int) -> None:
        """One thing that analysts and clients do."""
        name = self.chance.choice(self.names)
        kind = self.chance.choice(["say", "say", "edit", "system", "fork", "fork"])
        state = await recorded(self.world).replay.at(ANN, name)
        if kind == "fork":
            fork = f"s{len(self.names)}"
            version = self.chance.randint(1, state.version)
            await recorded(self.world).fork.run(
                ForkCommand(principal=ANN, session_id=name, at_version=version, fork_id=fork)
            )
            self.names.append(fork)
            return
        messages: list[Message] = [user(f"{kind} {number}")]
        if kind == "system":
            messages.insert(0, system(f"prompt {number}"))
        elif kind == "edit" and len(state.messages) > len(state.leading_system):
            kept = self.chance.randint(len(state.leading_system), len(state.messages) - 1)
            changed = replace(state.messages[kept], content=user(f"edited {number}").content)
            answer = state.messages[-1]
            messages = [*state.messages[:kept], changed, answer, *messages]
        await self.world.manent.complete_chat.start(ask(*messages, session_id=name)).generated()


@pytest.mark.parametrize("seed", range(8))
async def test_every_session_of_a_family_is_its_own_past(seed: int) -> None:
    """Cached or folded anew, now or at any version: a fork is its parent's messages then, and its own events."""
    chance = random.Random(seed)
    world = world_of_two_models()
    family = Family(world, chance)
    await world.manent.complete_chat.start(ask(user("first"), session_id="s0")).generated()
    for number in range(STEPS):
        await family.step(number)
    for name in family.names:
        cached, fresh = await recorded(world).replay.at(ANN, name), await folded(world, name)
        assert cached == fresh
        if fresh.parent is not None:
            parent = await recorded(world).replay.at(ANN, fresh.parent.session_id, AsOf(version=fresh.parent.version))
            begun = await recorded(world).replay.at(ANN, name, AsOf(version=1))
            assert list(begun.messages) == list(parent.messages)
    name = chance.choice(family.names)
    elsewhere = world_of_two_models()
    file = recorded(elsewhere).read_events_file(await events_file(world, name), elsewhere.manent.replays.rerun._ids)
    assert [message.text for message in file.messages] == texts_of(await folded(world, name))
