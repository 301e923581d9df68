"""Counting tokens once, and choosing a context without looking at the whole past."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.context import select_messages
from manent.domain.events import CompletionRequested
from manent.domain.generation import Truncation
from manent.domain.history import History
from manent.domain.messages import Message
from manent.domain.reconcile import SessionMode
from manent.domain.usecases.token_counts import TokenCounts
from tests.support.conversation import message, user
from tests.support.manent import ask, make_world

MODEL = "scripted"


class CountingEngine(ScriptedEngine):
    """An engine that remembers how many messages it was asked to count and to render."""

    counted = 0

    async def count_tokens(self, model_id: str, messages: Sequence[Message]) -> tuple[int, ...]:
        """See ``ScriptedEngine.count_tokens``."""
        self.counted += len(messages)
        return await super().count_tokens(model_id, messages)


def conversation(roles: str) -> list[Message]:
    """Messages of one to nine words; ``s``, ``u``, ``a`` and ``t`` say whose."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    words = random.Random(1)
    return [
        message(names[role], "w " * words.randint(1, 9), message_id=f"m{number}") for number, role in enumerate(roles)
    ]


async def test_a_message_is_counted_once() -> None:
    """What was counted is known, also as a part of a longer conversation; another model counts for itself."""
    engine = CountingEngine()
    counts = TokenCounts(engine)
    messages = conversation("suauau")
    expected = list(await ScriptedEngine().count_tokens(MODEL, messages))
    assert await counts.counts(MODEL, "acme", messages, range(6)) == expected
    assert await counts.counts(MODEL, "acme", messages, range(6)) == expected
    assert engine.counted == 6
    longer = [*messages, message("assistant", "a b c", message_id="m6")]
    assert await counts.counts(MODEL, "acme", longer, range(7)) == [*expected, 5]
    assert engine.counted == 6 + 2
    assert await counts.counts(MODEL, "rival", messages, range(1, 3)) == expected[1:3]


async def test_what_is_forgotten_is_counted_again() -> None:
    """The cache is bounded, and its answers are not, however small it is."""
    counts = TokenCounts(CountingEngine(), entries_max=2)
    messages = conversation("suauauauau")
    expected = list(await ScriptedEngine().count_tokens(MODEL, messages))
    for where in (range(10), range(3, 8), range(10)):
        assert await counts.counts(MODEL, "acme", messages, where) == [expected[i] for i in where]


@for_all(st.text("suat", min_size=1, max_size=200), st.integers(0, 400))
async def test_the_end_of_the_counts_is_enough(roles: str, budget: int) -> None:
    """A selection by the counts that the budget can need is the selection by all of them."""
    messages = conversation(roles)
    everything = await ScriptedEngine().count_tokens(MODEL, messages)
    some = await TokenCounts(ScriptedEngine()).at_the_end(MODEL, "acme", messages, budget_tokens=budget)
    assert select_messages(messages, some, budget_tokens=budget) == select_messages(
        messages, everything, budget_tokens=budget
    )


async def test_a_turn_does_not_count_the_past() -> None:
    """In a session far beyond the window each turn counts its own messages, and renders what fits."""
    engine = CountingEngine(Script(pieces=("ok",)))
    world = make_world(engine)
    for number in range(60):
        engine.counted = 0
        text = f"{number} " + "word " * 200
        command = ask(user(text), session_id="s", session_mode=SessionMode.APPEND, truncation=Truncation.AUTO)
        await world.manent.complete_chat.start(command).generated()
        if number > 30:
            assert engine.counted <= 4
            assert len(engine.rendered[-1]) < 30
    events = [event for event in await world.events("session-s") if isinstance(event, CompletionRequested)]
    context = events[-1].context
    assert context is not None
    assert context.dropped is not None
    assert context.dropped.count + len(context.message_ids) == 119


def test_a_history_that_was_extended_alike_is_shared() -> None:
    """The same messages decided twice stand in memory once, and other ones apart."""
    base = History([user("a")])
    one, other = user("b"), user("b")
    first = base.extended(one)
    assert first.shared_length(base.extended(one)) == 2
    assert base.extended(one)._shared is first._shared
    apart = base.extended(other)
    assert apart._shared is not first._shared
    assert (list(first), list(apart)) == ([user("a"), one], [user("a"), other])
    assert first.shared_length(apart) == 1
    assert base.extended() == base
