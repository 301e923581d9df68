"""The property that shared contexts are about: whatever happens to Redis, every read is the fold of the log."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from manent.adapters.projections.frames import TRAILER
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.session_walk import SQLSessionWalk
from manent.adapters.store.sqlite import ensure_log
from manent.app.system import RandomIds
from manent.domain.errors import VersionConflict
from manent.domain.events import HistoryRevised, SessionEvent, SystemPromptReplaced
from manent.domain.projections import CacheUnavailable
from manent.domain.records import EventContext
from manent.domain.replay_events import Fork
from manent.domain.session import SessionState
from manent.domain.usecases.rebuild_contexts import RebuildContexts
from manent.domain.usecases.sessions import Sessions
from tests.support.conversation import NOW_US, generated, requested, said, started, system
from tests.support.database import empty_database
from tests.support.sharing import Node, folded, sharing_node
from tests.support.valkey import ValkeyServer

CONTEXT = EventContext(tenant="acme", actor="ann")
SESSIONS = ("a", "b", "fork")
COMMANDS = ("say", "complete", "prompt", "revise", "fork", "read", "race", "restart node")
FAULTS = ("flush", "delete a key", "write garbage", "cut a key", "freeze", "kill", "rebuild", "lose the epoch")
Step = tuple[str, int, str, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from([*COMMANDS, *COMMANDS, *FAULTS]),
        st.integers(0, 2),
        st.sampled_from(SESSIONS),
        st.integers(0, 2**31),
    ),
    min_size=8,
    max_size=40,
)


@pytest.fixture(scope="module")
def empty_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with an empty log, to be copied."""
    path = tmp_path_factory.mktemp("log") / "manent.db"
    empty_database(path)
    uvloop.run(ensure_log(path, RandomIds()))
    return path


@settings(max_examples=40, deadline=None)
@for_all(STEPS)
def test_every_read_is_the_fold_of_the_log(own_valkey: ValkeyServer, empty_log: Path, steps: Sequence[Step]) -> None:
    """Three nodes, any commands in any order, and any damage to Redis in between."""
    uvloop.run(_live_through(own_valkey, empty_log, steps))


async def _live_through(valkey: ValkeyServer, empty_log: Path, steps: Sequence[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copy(empty_log, folder))
        valkey.run("FLUSHALL")
        async with AsyncExitStack() as stack:
            nodes = [
                await stack.enter_async_context(sharing_node(path, valkey.url, timeout_s=0.05, retry_s=0.01))
                for _ in range(3)
            ]
            world = _World(valkey, path, nodes)
            for step in steps:
                await world.take(*step)
            for session_id in SESSIONS:
                for node in nodes:
                    await world.check(node, session_id)


class _World:
    """Three nodes, a log and a Redis."""

    def __init__(self, valkey: ValkeyServer, path: Path, nodes: Sequence[Node]) -> None:
        self._valkey = valkey
        self._path = path
        self._nodes = nodes
        self._said = 0

    async def take(self, name: str, number: int, session_id: str, seed: int) -> None:
        """One command or fault; what is read after it must be right."""
        node, chance = self._nodes[number], random.Random(seed)
        if name == "restart node":
            node.forget_near()
        elif name == "freeze":
            with self._valkey.frozen():
                await self._change(node, session_id, "say", chance)
                await self.check(node, session_id)
        elif name == "race":
            others = [other for other in self._nodes if other is not node]
            for one in (node, *others):
                await self._change(one, session_id, chance.choice(COMMANDS[:4]), chance)
        elif name in FAULTS:
            await self._break(name, node, chance)
        elif name != "read":
            await self._change(node, session_id, name, chance)
        await self.check(node, session_id)

    async def check(self, node: Node, session_id: str) -> None:
        """What the node says, from whatever it has, is what the log says."""
        assert await node.sessions.load("acme", session_id) == await folded(node.store, "acme", session_id)

    async def _change(self, node: Node, session_id: str, name: str, chance: random.Random) -> None:
        state = await node.sessions.load("acme", session_id)
        if state.version == 0:
            state, events = await self._started(node, state, chance)
        else:
            events = self._events(state, name, chance)
        try:
            await node.sessions.record(state, events, context=CONTEXT)
        except VersionConflict:
            raise AssertionError("a state that was just loaded was old") from None

    def _events(self, state: SessionState, name: str, chance: random.Random) -> list[SessionEvent]:
        self._said += 1
        text, at_us = f"{self._said} " + "x" * chance.choice((1, 30, 3000)), NOW_US + self._said
        if name == "complete":
            completion_id = f"c{self._said}"
            asked: list[SessionEvent] = [said("user", text), requested(completion_id)]
            return [*asked, generated("ok", completion_id), said("assistant", text)]
        if name == "prompt":
            prompt = (system(text),)
            return [SystemPromptReplaced(session_id="s", messages=prompt, replaced_by="ann", replaced_at_us=at_us)]
        if name == "revise" and len(state.messages) > 0:
            index = chance.randrange(len(state.messages))
            return [
                HistoryRevised(
                    session_id="s",
                    from_message_id=state.messages[index].message_id,
                    from_index=index,
                    revised_by="ann",
                    revised_at_us=at_us,
                )
            ]
        return [said("user", text)]

    async def _started(
        self, node: Node, absent: SessionState, chance: random.Random
    ) -> tuple[SessionState, list[SessionEvent]]:
        """What a session begins with: nothing, or the past of another."""
        parent = await node.sessions.load("acme", "a")
        own = replace(started(), session_id=absent.session_id)
        if absent.session_id != "fork" or parent.version == 0:
            return absent, [own]
        past = await node.sessions.load_at("acme", "a", chance.randint(1, parent.version))
        return replace(absent, messages=past.messages), [
            replace(own, parent=Fork(session_id="a", version=past.version))
        ]

    async def _break(self, name: str, node: Node, chance: random.Random) -> None:
        if name == "kill":
            self._valkey.kill()
            self._valkey.start()
        elif name == "rebuild":
            await self._rebuild(node)
        elif name == "flush":
            self._valkey.run("FLUSHALL")
        else:
            self._damage(name, chance)

    async def _rebuild(self, node: Node) -> None:
        rows = open_rows(self._path, strict=True)
        try:
            await RebuildContexts(SQLSessionWalk(rows), Sessions(node.store, node.near), node.shared).run(
                lambda _: None
            )
        except CacheUnavailable:
            pass  # it was just killed; the epoch before is the current one
        finally:
            await rows.aclose()

    def _damage(self, name: str, chance: random.Random) -> None:
        keys = sorted(self._valkey.run("KEYS", "manent:*"))
        keys = [key for key in keys if key.endswith(b":epoch") == (name == "lose the epoch")]
        if not keys:
            return
        key = chance.choice(keys)
        if name == "write garbage":
            self._valkey.run("SET", key, chance.randbytes(40) + TRAILER.pack(7, 40, chance.randrange(2**32), 1))
        elif name == "cut a key":
            value = self._valkey.run("GET", key) or b""
            self._valkey.run("SET", key, value[: chance.randint(0, len(value))])
        else:
            self._valkey.run("DEL", key)
