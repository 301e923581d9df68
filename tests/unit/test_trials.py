"""Who is to blame for a failed evaluation, and who may be evaluated meanwhile."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from manent.adapters.inference.trials import TRIAL_TOKENS, UNEXPLAINED_MAX, Trials

FRESH = {1: 0, 2: 0, 3: 0}


def test_a_failure_of_one_request_is_its_own() -> None:
    """There is nobody else whom it could be about."""
    trials = Trials()
    assert trials.failed([7]) == [7]
    assert trials.admits_newcomers


def test_after_a_failure_of_several_each_is_tried_in_its_order() -> None:
    """The next one comes when the one on trial was given its tokens; then newcomers may join again."""
    trials = Trials()
    assert trials.failed([1, 2]) == []
    assert not trials.admits_newcomers
    trials.put_off(3)
    tokens = {1: 5, 2: 0, 3: 0}
    assert trials.next(tokens) == 1
    assert trials.next(tokens) is None
    tokens[1] += TRIAL_TOKENS
    assert trials.next(tokens) == 2
    tokens[2] += TRIAL_TOKENS
    assert trials.next(tokens) == 3
    tokens[3] += TRIAL_TOKENS
    assert trials.next(tokens) is None
    assert trials.admits_newcomers


def test_a_failure_during_a_trial_is_blamed_on_who_is_on_trial() -> None:
    """The others that were evaluated with it are tried again, before those that still wait."""
    trials = Trials()
    trials.failed([1, 2, 3])
    assert trials.next(FRESH) == 1
    assert trials.next({**FRESH, 1: TRIAL_TOKENS}) == 2
    assert trials.failed([1, 2]) == [2]
    assert trials.next({1: 9, 3: 0}) == 1
    assert trials.next({1: 9 + TRIAL_TOKENS, 3: 0}) == 3


def test_who_leaves_on_trial_makes_room_for_the_next() -> None:
    """Ended or cancelled, on trial or waiting for it."""
    trials = Trials()
    trials.failed([1, 2, 3])
    assert trials.next(FRESH) == 1
    trials.forget(2)
    trials.forget(1)
    assert trials.next({3: 0}) == 3


def test_failures_that_nobody_explains_fail_the_batch() -> None:
    """Each request alone is fine, all together are not, again and again: that ends, and with everybody told."""
    trials = Trials()
    for _ in range(UNEXPLAINED_MAX - 1):
        assert trials.failed([1, 2]) == []
        for request_id in (1, 2):
            assert trials.next({1: 0, 2: 0} | ({1: TRIAL_TOKENS} if request_id == 2 else {})) == request_id
        assert trials.next({1: 99, 2: 99}) is None
    assert trials.failed([1, 2]) == [1, 2]
    assert trials.admits_newcomers


class World:
    """Requests that join, get tokens, fail and leave."""

    def __init__(self) -> None:
        self.trials = Trials()
        self.tokens: dict[int, int] = {}
        self.running: list[int] = []
        self._numbers = itertools.count()

    def join(self) -> None:
        """A request comes."""
        number = next(self._numbers)
        self.tokens[number] = 0
        if self.trials.admits_newcomers:
            self.running.append(number)
        else:
            self.trials.put_off(number)

    def step(self) -> None:
        """An evaluation succeeds."""
        if (entered := self.trials.next(self.tokens)) is not None:
            assert entered not in self.running
            self.running.append(entered)
        for number in self.running:
            self.tokens[number] += 1

    def leave(self) -> None:
        """The oldest ends."""
        if self.tokens:
            self._end(min(self.tokens))

    def fail(self) -> None:
        """An evaluation fails."""
        for number in self.trials.failed(self.running) if self.running else []:
            self._end(number)
        self.running = []

    def _end(self, number: int) -> None:
        self.running = [other for other in self.running if other != number]
        self.trials.forget(number)
        del self.tokens[number]


@given(st.lists(st.sampled_from(["fail", "step", "join", "leave"]), max_size=60))
def test_nobody_is_lost(moves: list[str]) -> None:
    """Whatever happens, each request that did not end is evaluated or waits for its trial, and never twice."""
    world = World()
    for move in moves:
        getattr(world, move)()
    for _ in range((len(world.tokens) + 1) * (TRIAL_TOKENS + 1)):
        world.step()
    assert sorted(world.running) == sorted(world.tokens)
    assert world.trials.admits_newcomers
