"""Two conversations turn by turn: what is shared, what is equal, what differs, and what the log says of both."""

from __future__ import annotations

import pytest

from manent.domain.diff import TurnStatus, compare
from manent.domain.errors import SessionNotFound
from manent.domain.generation import RequestedParameters
from manent.domain.replay_events import Fork
from manent.domain.usecases.fork_session import ForkCommand
from manent.domain.usecases.manage_sessions import StartSession
from manent.domain.usecases.run_rerun import RerunCommand
from tests.support.conversation import ANN, BOB, assistant, message, user
from tests.support.replays import ended, recorded, talk, world_of_two_models

ONE = [user("one"), assistant("first")]


def test_the_same_messages_are_shared_and_the_same_words_are_equal() -> None:
    """What is one message in both is the common past; what only reads alike is compared, and found equal."""
    a = [*ONE, user("two"), assistant("second")]
    b = [*ONE, message("user", "two", "m1"), message("assistant", "second", "m2")]
    comparison = compare(a, b)
    assert (comparison.shared, [pair.status for pair in comparison.pairs]) == (1, [TurnStatus.EQUAL])


@pytest.mark.parametrize(
    ("b", "same_said", "same_answer"),
    [
        ([message("user", "two", "m1"), message("assistant", "other", "m2")], True, False),
        ([message("user", "TWO", "m1"), message("assistant", "second", "m2")], False, True),
        ([message("user", "two", "m1")], True, False),
        ([message("user", "two", "m1"), message("assistant", "second ", "m2")], True, False),
    ],
)
def test_what_changed_in_a_turn_is_told(b: list[object], *, same_said: bool, same_answer: bool) -> None:
    """Question or answer, white space included."""
    (pair,) = compare([*ONE, user("two"), assistant("second")], [*ONE, *b]).pairs  # type: ignore[list-item]  # messages
    assert (pair.status, pair.same_said, pair.same_answer) == (TurnStatus.CHANGED, same_said, same_answer)


def test_the_longer_one_has_turns_of_its_own() -> None:
    """They are aligned from the end of the common past on."""
    longer, shorter = [*ONE, user("two"), assistant("second"), user("three")], ONE
    assert [pair.status for pair in compare(longer, shorter).pairs] == [TurnStatus.ONLY_IN_A] * 2
    assert [pair.status for pair in compare(shorter, longer).pairs] == [TurnStatus.ONLY_IN_B] * 2
    assert [pair.number for pair in compare(shorter, longer).pairs] == [2, 3]


def test_a_question_that_is_shared_belongs_to_its_turn() -> None:
    """A fork between a question and its answer: the turn is compared whole."""
    a = [*ONE, user("two"), assistant("second")]
    comparison = compare(a, [*a[:3], assistant("other")])
    assert comparison.shared == 1
    assert comparison.pairs[0].same_said


async def test_a_rerun_is_compared_with_its_original() -> None:
    """The shared past is known; each answer comes with its completion: model, parameters, usage."""
    world = world_of_two_models()
    await talk(world, "one", "two", "three", parameters=RequestedParameters(temperature=0.5, seed=1))
    asked = RerunCommand(
        principal=ANN, session_id="s", from_version=5, model="other", rerun_session_id="r",
        parameters=RequestedParameters(seed=2),
    )  # fmt: skip
    await world.manent.replays.rerun.start(asked)
    await ended(world)
    page = await recorded(world).diff.page(ANN, "s", "r", after=None, limit=20)
    assert (page.comparison.shared, page.common) == (1, Fork(session_id="s", version=5))
    assert [pair.status for pair in page.pairs] == [TurnStatus.CHANGED] * 2
    for pair, models in zip(page.pairs, (("scripted", "other"),) * 2, strict=True):
        assert pair.a is not None
        assert pair.b is not None
        assert pair.a.answer is not None
        assert pair.b.answer is not None
        sides = [page.completions[answer.message_id] for answer in (pair.a.answer, pair.b.answer)]
        assert tuple(side.model_id for side in sides) == models
        assert [side.parameters.seed for side in sides] == [1, 2]
        assert [side.usage.completion_tokens for side in sides] == [3, 3]


async def test_completions_of_an_inherited_past_are_found() -> None:
    """Two forks of one session at different versions: what only one of them inherited is looked up in the parent."""
    world = world_of_two_models()
    await talk(world, "one", "two", "three")
    for name, version in (("early", 5), ("late", 9)):
        await recorded(world).fork.run(ForkCommand(principal=ANN, session_id="s", at_version=version, fork_id=name))
    page = await recorded(world).diff.page(ANN, "early", "late", after=None, limit=20)
    assert page.common == Fork(session_id="s", version=5)
    (pair,) = page.pairs
    assert pair.status is TurnStatus.ONLY_IN_B
    assert len(page.completions) == 1


async def test_pages_go_by_turns() -> None:
    """Following the last number shows every turn once."""
    world = world_of_two_models()
    for name in ("a", "b"):
        await talk(world, *(f"turn {number}" for number in range(5)), session_id=name)
    seen: list[int] = []
    after: int | None = None
    while True:
        page = await recorded(world).diff.page(ANN, "a", "b", after=after, limit=2)
        seen += [pair.number for pair in page.pairs]
        if not page.has_more:
            break
        after = seen[-1]
    assert seen == [1, 2, 3, 4, 5]
    assert page.common is None


async def test_what_clients_brought_has_no_completion() -> None:
    """Messages that were there when a session started."""
    world = world_of_two_models()
    for name in ("a", "b"):
        await world.manent.manage_sessions.start(
            StartSession(principal=ANN, session_id=name, messages=(user("x"), assistant(f"by {name}")))
        )
    page = await recorded(world).diff.page(ANN, "a", "b", after=None, limit=2)
    assert page.completions == {}
    assert page.comparison.count(TurnStatus.CHANGED) == 1


@pytest.mark.parametrize(("a", "b"), [("s", "nobody"), ("nobody", "s")])
async def test_both_must_be_readable(a: str, b: str) -> None:
    """One that is not there, and anything at all for somebody else."""
    world = world_of_two_models()
    await talk(world, "one")
    with pytest.raises(SessionNotFound):
        await recorded(world).diff.page(ANN, a, b, after=None, limit=2)
    with pytest.raises(SessionNotFound):
        await recorded(world).diff.page(BOB, "s", "s", after=None, limit=2)
