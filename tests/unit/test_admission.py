"""The queue in front of a model: its bounds, its order, and that no place is ever lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import pytest

from manent.adapters.inference.admission import INTERACTIVE_IN_A_ROW, Admission, AdmissionLimits
from manent.domain.admission import Priority, QueuePlace
from manent.domain.errors import CompletionCancelledError, EngineBusy

BACKGROUND, BATCH, INTERACTIVE = Priority.BACKGROUND, Priority.BATCH, Priority.INTERACTIVE


def admission(**limits: float) -> Admission:
    """A queue for one at a time unless said otherwise."""
    return Admission("m", AdmissionLimits(**{"running_max": 1, "in_flight_max": 100, **limits}))  # type: ignore[arg-type]  # by name


class Users:
    """Users of a queue that hold their places until they are told to go; ``came`` is who got one, in order."""

    def __init__(self, queue: Admission) -> None:
        self.queue = queue
        self.came: list[str] = []
        self.places: dict[str, QueuePlace] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def come(
        self,
        name: str,
        priority: Priority = INTERACTIVE,
        *,
        alone: bool = False,
        gone: asyncio.Event | None = None,
    ) -> None:
        """Join the queue."""
        self._leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._use(name, priority, alone=alone, gone=gone))
        await settle()

    async def leave(self, name: str) -> None:
        """Give the place back."""
        self._leave[name].set()
        await settle()

    async def _use(self, name: str, priority: Priority, *, alone: bool, gone: asyncio.Event | None) -> None:
        left = None if gone is None else partial(returns_at, gone)
        async with self.queue.place(priority, alone=alone, gone=left) as place:
            self.came.append(name)
            self.places[name] = place
            await self._leave[name].wait()


async def returns_at(event: asyncio.Event) -> None:
    """Return when the event comes."""
    await event.wait()


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_finds_room_does_not_wait() -> None:
    """Position and wait are nothing; the place is given back at the end."""
    queue = admission(running_max=2)
    async with queue.place() as place, queue.place():
        assert (place.position, queue.running, queue.waiting) == (0, 2, 0)
        assert place.waited_s < 1
    assert queue.in_flight == 0


async def test_those_who_wait_are_told_how_many_were_ahead() -> None:
    """Interactive requests come in their order, before batches that came earlier."""
    users = Users(admission())
    await users.come("first")
    await users.come("batch", BATCH)
    await users.come("a")
    await users.come("b")
    for name in ("first", "a", "b", "batch"):
        await users.leave(name)
    assert users.came == ["first", "a", "b", "batch"]
    assert {name: place.position for name, place in users.places.items()} == {"first": 0, "batch": 0, "a": 0, "b": 1}
    assert users.queue.in_flight == 0


async def test_a_batch_is_not_passed_over_for_ever() -> None:
    """After so many interactive ones in a row it is its turn."""
    users = Users(admission())
    await users.come("first")
    await users.come("batch", BATCH)
    names = [f"i{number}" for number in range(INTERACTIVE_IN_A_ROW + 2)]
    for name in names:
        await users.come(name)
    for _ in range(len(names) + 2):
        await users.leave(users.came[-1])
    assert users.came.index("batch") == 1 + INTERACTIVE_IN_A_ROW


async def test_batches_leave_room_for_who_is_interactive() -> None:
    """They take three places of four; the fourth waits empty for somebody who cannot wait."""
    users = Users(admission(running_max=4))
    for number in range(5):
        await users.come(f"b{number}", BATCH)
    assert (users.queue.running, users.queue.waiting) == (3, 2)
    await users.come("now")
    assert users.came[-1] == "now"
    for name in ("b0", "b1", "b2", "b3", "b4", "now"):
        await users.leave(name)
    assert users.queue.in_flight == 0


async def test_who_is_to_be_alone_waits_for_the_others_and_they_for_it() -> None:
    """Who came before ends first, nobody overtakes, and those who waited behind come in together."""
    users = Users(admission(running_max=4))
    for name in ("a", "b"):
        await users.come(name)
    await users.come("alone", alone=True)
    for name in ("c", "d"):
        await users.come(name)
    await users.leave("a")
    assert users.came == ["a", "b"]
    await users.leave("b")
    assert users.came == ["a", "b", "alone"]
    await users.leave("alone")
    assert users.came == ["a", "b", "alone", "c", "d"]
    assert {name: place.position for name, place in users.places.items() if place.position} == {"c": 1, "d": 2}
    for name in ("c", "d"):
        await users.leave(name)
    assert users.queue.in_flight == 0


async def test_a_batch_that_is_to_be_alone_gets_its_turn() -> None:
    """Interactive requests go before it four times; then the model empties for it, whoever else comes."""
    users = Users(admission(running_max=8))
    await users.come("first")
    await users.come("alone", BATCH, alone=True)
    for number in range(INTERACTIVE_IN_A_ROW + 2):
        await users.come(f"i{number}")
    assert len(users.came) == 1 + INTERACTIVE_IN_A_ROW
    for name in list(users.came):
        await users.leave(name)
    assert users.came[-1] == "alone"
    await users.leave("alone")
    assert users.came[-2:] == ["i4", "i5"]
    for name in ("i4", "i5"):
        await users.leave(name)
    assert users.queue.in_flight == 0


async def test_who_gives_up_being_alone_holds_nobody_up() -> None:
    """Those behind it come in at once."""
    users, gone = Users(admission(running_max=4)), asyncio.Event()
    await users.come("first")
    await users.come("alone", alone=True, gone=gone)
    await users.come("next")
    assert users.came == ["first"]
    gone.set()
    with pytest.raises(CompletionCancelledError):
        await users.tasks["alone"]
    await settle()
    assert users.came == ["first", "next"]
    for name in ("first", "next"):
        await users.leave(name)
    assert users.queue.in_flight == 0


async def test_too_many_are_refused_at_once() -> None:
    """The bound counts those who wait, and says when to come back."""
    users = Users(admission(in_flight_max=2))
    await users.come("first")
    await users.come("second")
    with pytest.raises(EngineBusy, match="2 requests") as caught:
        await users.queue.place().__aenter__()
    assert caught.value.retry_after_s is not None
    await users.leave("first")
    await users.leave("second")


async def test_a_wait_is_bounded() -> None:
    """Who waited in vain is refused, and is not in the queue any more."""
    queue = admission(wait_max_s=0.01)
    async with queue.place():
        with pytest.raises(EngineBusy, match=r"free in 0\.01 s"):
            await queue.place().__aenter__()
        assert queue.in_flight == 1


async def test_who_is_not_wanted_any_more_leaves_the_queue() -> None:
    """The next one takes the turn."""
    users, gone = Users(admission()), asyncio.Event()
    await users.come("first")
    await users.come("leaves", gone=gone)
    await users.come("next", gone=asyncio.Event())
    gone.set()
    with pytest.raises(CompletionCancelledError):
        await users.tasks["leaves"]
    await users.leave("first")
    assert users.came == ["first", "next"]
    await users.leave("next")
    assert users.queue.in_flight == 0


@pytest.mark.parametrize("steps", range(6))
async def test_a_place_that_comes_at_the_last_moment_is_handed_on(steps: int) -> None:
    """Whoever is cancelled while the place is on its way loses it to the next, and it is not lost."""
    users = Users(admission())
    await users.come("first")
    await users.come("cancelled")
    await users.come("next")
    users._leave["first"].set()
    for _ in range(steps):
        await asyncio.sleep(0)
    users.tasks["cancelled"].cancel()
    await settle()
    assert users.came[-1] == "next"
    await users.leave("next")
    assert users.queue.in_flight == 0


async def test_places_are_counted_right_in_a_crowd() -> None:
    """Two hundred come and go at random moments; at no moment more than allowed have a place, nor is one not alone."""
    queue = admission(running_max=3, in_flight_max=300)
    most = most_with_one_alone = 0

    async def one(number: int) -> None:
        nonlocal most, most_with_one_alone
        alone = number % 11 == 0
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(queue.place(BATCH if number % 3 else INTERACTIVE, alone=alone))
            for _ in range(number % 5 + 1):
                most = max(most, queue.running)
                most_with_one_alone = max(most_with_one_alone, queue.running if alone else 0)
                await asyncio.sleep(0)

    tasks = [asyncio.create_task(one(number)) for number in range(200)]
    for number, task in enumerate(tasks):
        await asyncio.sleep(0)
        if number % 7 == 0:
            task.cancel()
    await asyncio.wait(tasks)
    assert (most, most_with_one_alone) == (3, 1)
    assert queue.in_flight == 0


async def test_what_is_in_the_background_takes_what_nobody_waits_for() -> None:
    """It goes last, however often others go before it, and leaves half of the places."""
    users = Users(admission(running_max=2))
    for number in range(3):
        await users.come(f"back{number}", BACKGROUND)
    assert users.came == ["back0"]
    await users.come("first")
    names = ["batch", *(f"i{number}" for number in range(INTERACTIVE_IN_A_ROW + 2))]
    for name in names:
        await users.come(name, BATCH if name == "batch" else INTERACTIVE)
    await users.leave("back0")
    for _ in range(len(names)):
        await users.leave(next(name for name in users.came if not users.tasks[name].done()))
    assert set(users.came[1 : len(names) + 2]) == {"first", *names}
    for name in ("back1", "back2", *names):
        await users.leave(name)
    assert users.came[-2:] == ["back1", "back2"]
    await users.leave("back2")
    assert users.queue.in_flight == 0


async def test_what_is_in_the_background_has_nobody_refused() -> None:
    """It neither counts where there are too many, nor is it refused for them."""
    users = Users(admission(in_flight_max=2))
    for number in range(3):
        await users.come(f"back{number}", BACKGROUND)
    await users.come("a")
    await users.come("b")
    async with AsyncExitStack() as stack:
        with pytest.raises(EngineBusy):
            await stack.enter_async_context(users.queue.place())
    await users.come("back3", BACKGROUND)
    for name in ("back0", "a", "b", "back1", "back2", "back3"):
        await users.leave(name)
    assert users.came == ["back0", "a", "b", "back1", "back2", "back3"]
