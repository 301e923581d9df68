"""Loading, leasing, evicting and giving up of models, over runners without processes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from manent.adapters.inference.exchange import LoadOutOfMemory
from manent.domain.errors import (
    CompletionCancelledError,
    DomainError,
    EngineUnavailable,
    InsufficientMemory,
    ModelInUse,
    ModelLoadError,
    ModelUnavailable,
)
from manent.domain.model_events import ModelLoadFailed, ModelPinChanged, ModelUnloaded
from manent.domain.residency import MemoryBudget, Phase
from tests.support.engines import supervisor_settings, until
from tests.support.fake_runners import managed, model

A, B, C = model("a", size_bytes=40), model("b", size_bytes=40), model("c", size_bytes=40)
TWO_FIT = supervisor_settings(Path("/none"), memory_bytes=100, memory_wait_s=0.3, failure_memory_s=0.05)


def reasons(events: list[object]) -> list[str]:
    """Why models were unloaded, in order."""
    return [event.reason for event in events if isinstance(event, ModelUnloaded)]


async def test_one_load_serves_any_number_of_callers() -> None:
    """A hundred requests at once, half of whom give up: one load."""
    async with managed([A]) as world:
        callers = [asyncio.create_task(world.use("a")) for _ in range(50)]
        await asyncio.sleep(0)
        for caller in callers[::2]:
            caller.cancel()
        await asyncio.wait(callers)
        assert world.runners.loads == ["a"]
        assert [caller.cancelled() for caller in callers[:2]] == [True, False]
        assert world.manager.supervisor("a").leases == 0


async def test_the_least_recently_used_makes_room() -> None:
    """Before the new one is started, and the event says for whom."""
    async with managed([A, B, C], settings=TWO_FIT) as world:
        await world.use("a", "b", "a", "c")
        assert world.runners.alive == ["a", "c"]
        (unloaded,) = [event for event in world.events if isinstance(event, ModelUnloaded)]
        assert (unloaded.model_id, unloaded.reason, unloaded.evicted_for) == ("b", "evicted", "c")
        assert unloaded.memory_bytes == 40


async def test_a_model_in_use_stays_and_the_other_waits() -> None:
    """It is loaded as soon as the request ends; nothing is unloaded under a request."""
    async with managed([A, B, C], settings=replace(TWO_FIT, memory_wait_s=30)) as world:
        async with world.used("a"), world.used("b"):
            waiting = asyncio.create_task(world.use("c"))
            await asyncio.sleep(0.05)
            assert world.runners.alive == ["a", "b"]
        await asyncio.wait_for(waiting, 5)
        assert world.runners.alive == ["a", "c"]


async def test_the_wait_for_room_is_bounded() -> None:
    """It ends in an error that says who holds how much, and when to come again; later there is room at once."""
    async with managed([A, B, C], settings=TWO_FIT) as world:
        async with world.used("a"), world.used("b"):
            with pytest.raises(InsufficientMemory, match=r"a holds .*\(in use by 1 request\)") as caught:
                await world.use("c")
            assert caught.value.retry_after_s is not None
        await asyncio.sleep(0.06)
        await world.use("c")
        failed = [event for event in world.events if isinstance(event, ModelLoadFailed)]
        assert [event.model_id for event in failed] == ["c"]


async def test_a_pinned_model_stays() -> None:
    """What does not fit beside it is refused without a wait, and fits once the pin is gone: an event each."""
    async with managed([replace(A, pinned=True), model("big", size_bytes=80)], settings=TWO_FIT) as world:
        await world.use("a")
        with pytest.raises(InsufficientMemory, match="pinned"):
            await world.use("big")
        await world.manager.pin("a", pinned=False, by="ann")
        await world.manager.load("big")
        assert world.runners.alive == ["big"]
        changes = [event for event in world.events if isinstance(event, ModelPinChanged)]
        assert [(event.pinned, event.changed_by) for event in changes] == [(False, "ann")]


async def test_the_budget_is_read_anew_so_nobody_is_locked_out() -> None:
    """A refusal for want of memory is forgotten within a second, however often it happened before."""
    budgets = [MemoryBudget(total_bytes=10, reserved_bytes=0, margin_bytes=0)]
    settings = replace(TWO_FIT, budget=lambda: budgets[-1])
    async with managed([A], settings=settings) as world:
        for _ in range(8):
            with pytest.raises(InsufficientMemory):
                await world.use("a")
            assert world.manager.supervisor("a").circuit.wait_s <= settings.failure_memory_s
            await asyncio.sleep(settings.failure_memory_s)
        budgets.append(MemoryBudget(total_bytes=50, reserved_bytes=0, margin_bytes=0))
        await world.use("a")


async def test_a_model_larger_than_expected_is_given_up_and_said_so() -> None:
    """What it really holds counts: the second attempt makes room for it, and if there is none, both are measured."""
    small = model("small")
    async with managed([A, small], {"small": 90}, settings=TWO_FIT) as world:
        await world.use("a", "small")
        assert world.runners.alive == ["small"]
        async with managed([model("huge")], {"huge": 150}, settings=TWO_FIT) as other:
            with pytest.raises(InsufficientMemory, match="once it is loaded"):
                await other.use("huge")
            assert other.runners.loads == ["huge"]
            assert other.runners.alive == []


async def test_memory_that_runs_out_is_freed_and_the_load_repeated_once() -> None:
    """Unused models go, the second attempt works; where it fails as well, the error says what happened."""
    failures = {"c": 1}

    def fails(model_id: str) -> Exception | None:
        failures[model_id] = failures.get(model_id, 0) - 1
        return LoadOutOfMemory("the runner was killed by SIGKILL") if failures[model_id] >= 0 else None

    async with managed([A, B, replace(C, memory_bytes=5)], settings=TWO_FIT, fails=fails) as world:
        await world.use("a")
        async with world.used("b"):
            await world.use("c")
            assert world.runners.alive == ["b", "c"]
        assert reasons([*world.events]) == ["out_of_memory"]
        failures["a"] = 2
        with pytest.raises(InsufficientMemory, match="SIGKILL; it was tried twice"):
            await world.use("a")
        assert world.runners.loads.count("a") == 3


async def test_growth_over_the_budget_unloads_unused_models() -> None:
    """Counted is what processes hold, also long after the load."""
    async with managed([A, B], settings=TWO_FIT, start=True) as world:
        await world.use("a", "b")
        grown = world.runners.of("b")
        grown.facts = msgspec.structs.replace(grown.facts, memory_bytes=90)
        await asyncio.wait_for(until(lambda: world.runners.alive == ["b"]), 5)
        assert reasons([*world.events]) == ["over_budget"]


async def test_idle_models_are_unloaded_but_never_in_use() -> None:
    """The timeout of a model's entry goes before the setting; work in flight is no idleness."""
    settings = replace(TWO_FIT, idle_timeout_s=0.2, watch_interval_s=0.02)
    kept = replace(B, idle_timeout_s=0.0)
    async with managed([A, kept], settings=settings, start=True) as world:
        await world.use("b")
        async with world.used("a"):
            await asyncio.sleep(0.4)
            assert world.runners.alive == ["b", "a"]
        await asyncio.wait_for(until(lambda: world.runners.alive == ["b"]), 5)
        assert reasons([*world.events]) == ["idle"]
        await world.use("a")


async def test_models_are_loaded_at_the_start() -> None:
    """In order; one that fails is told and keeps nobody else from being loaded. Until then the server is not ready."""
    bad = replace(A, auto_load=True)
    models = [bad, B, replace(C, auto_load=True)]

    def fails(model_id: str) -> Exception | None:
        return ModelLoadError("broken") if model_id == "a" else None

    async with managed(models, fails=fails, start=True) as world:
        assert "a, c" in world.manager.problems()["models"]
        await asyncio.wait_for(until(lambda: world.runners.alive == ["c"]), 5)
        await asyncio.wait_for(until(lambda: not world.manager.problems()), 5)
        assert world.events.names == ["ModelLoadFailed", "ModelLoaded"]


async def test_who_leaves_while_the_model_loads_keeps_no_place() -> None:
    """The load goes on for the others; the one who left is told so at once, and holds the model no longer."""
    async with managed([A]) as world:
        world.runners.gate.clear()
        left = asyncio.Event()

        async def gone() -> None:
            await left.wait()

        async def ask() -> None:
            async with world.manager.place("a", gone=gone):
                raise AssertionError("it was let in")

        leaving, staying = asyncio.create_task(ask()), asyncio.create_task(world.use("a"))
        await asyncio.wait_for(until(lambda: world.runners.loads == ["a"]), 5)
        left.set()
        with pytest.raises(CompletionCancelledError, match="nobody waits any more"):
            await asyncio.wait_for(leaving, 5)
        assert world.manager.supervisor("a").leases == 1
        world.runners.gate.set()
        await asyncio.wait_for(staying, 5)
        assert world.runners.loads == ["a"]


async def test_the_fallbacks_answer_in_their_order() -> None:
    """Also the fallbacks of fallbacks; where none can, the error is that of the model that was asked for."""
    chain = [replace(A, fallback=("b",)), replace(B, fallback=("c",)), C]
    broken = {"a", "b"}

    def fails(model_id: str) -> Exception | None:
        return ModelLoadError(f"{model_id} is broken") if model_id in broken else None

    async with managed(chain, settings=TWO_FIT, fails=fails) as world:
        async with world.used("a") as used:
            assert used == "c"
        broken.add("c")
        await world.manager.unload("c", by="ann")
        with pytest.raises(ModelLoadError, match="a is broken"):
            await world.use("a")


async def test_a_failure_while_answering_is_not_the_fallbacks_business() -> None:
    """Once a request has its place, an error is its own: nothing is generated twice behind its back."""
    async with managed([replace(A, fallback=("b",)), B]) as world:
        with pytest.raises(EngineUnavailable, match="mine"):
            async with world.used("a"):
                raise EngineUnavailable("mine")
        assert world.runners.loads == ["a"]


async def test_repeated_crashes_suspend_a_model_and_one_request_tries_it_again() -> None:
    """Two in a row are tolerated; after the third nobody gets through, then one, and its success lets all in."""
    settings = replace(TWO_FIT, failure_memory_s=0.2)
    async with managed([A], settings=settings) as world:
        for _ in range(3):
            async with world.manager.place("a"):
                await world.runners.of("a").crash()
        assert world.manager.supervisor("a").phase is Phase.SUSPENDED
        assert "every model failed" in world.manager.problems()["models"]
        with pytest.raises(ModelUnavailable, match="3 times in a row") as caught:
            await world.use("a")
        assert caught.value.retry_after_s is not None
        await asyncio.wait_for(until(lambda: not world.manager.supervisor("a").circuit.is_open), 5)
        async with world.manager.place("a"):
            with pytest.raises(ModelUnavailable, match="trying it now"):
                await world.use("a")
        await world.use("a")
        async with world.used("a"), world.used("a"):
            pass
        assert world.events.names.count("ModelSuspended") == 1


async def test_a_failed_load_is_answered_from_memory_and_an_operator_may_try_at_once() -> None:
    """Requests do not make the server load a broken model again and again; whoever mended it need not wait."""
    broken = {"a"}

    def fails(model_id: str) -> Exception | None:
        return ModelLoadError("broken") if model_id in broken else None

    async with managed([A], settings=replace(TWO_FIT, failure_memory_s=60), fails=fails) as world:
        for _ in range(5):
            with pytest.raises(ModelLoadError, match="broken"):
                await world.use("a")
        assert world.runners.loads == ["a"]
        broken.clear()
        assert (await world.manager.load("a")).phase is Phase.LOADED


async def test_only_what_is_unused_is_unloaded_on_request() -> None:
    """In use and loading are refused with the reason; absent is no error; a request after it loads anew."""
    async with managed([A]) as world:
        assert await world.manager.unload("a", by="ann") is False
        async with world.used("a"):
            with pytest.raises(ModelInUse, match="model a is used by requests"):
                await world.manager.unload("a", by="ann")
        assert await world.manager.unload("a", by="ann") is True
        world.runners.gate.clear()
        loading = asyncio.create_task(world.use("a"))
        await asyncio.wait_for(until(lambda: world.runners.loads.count("a") == 2), 5)
        with pytest.raises(ModelInUse, match="is being loaded"):
            await world.manager.unload("a", by="ann")
        world.runners.gate.set()
        await loading
        (unloaded,) = [event for event in world.events if isinstance(event, ModelUnloaded)]
        assert (unloaded.reason, unloaded.unloaded_by) == ("requested", "ann")


async def test_a_request_during_an_unload_waits_for_a_new_runner() -> None:
    """It gets neither the dying runner nor an error, and two are never alive at once."""
    async with managed([A]) as world:
        await world.use("a")
        unloading = asyncio.create_task(world.manager.unload("a", by="ann"))
        await asyncio.sleep(0)
        await world.use("a")
        assert await unloading is True
        assert world.runners.alive == ["a"]
        assert world.events.names == ["ModelLoaded", "ModelUnloaded", "ModelLoaded"]


async def test_a_runner_that_gives_no_sign_of_life_gets_no_requests() -> None:
    """They fail at once instead of waiting for its end, and readiness names the model."""
    async with managed([A]) as world:
        await world.use("a")
        world.runners.of("a").silent_s = 20.0
        with pytest.raises(ModelUnavailable, match="no sign of life for 20 s"):
            await world.use("a")
        assert "no sign of life" in world.manager.problems()["model a"]
        world.runners.of("a").silent_s = 0.0
        await world.use("a")
        assert world.manager.problems() == {}


async def test_runners_are_asked_whether_they_live() -> None:
    """Idle ones as well: an engine thread that died is found before a request finds it."""
    settings = replace(TWO_FIT, watch_interval_s=0.01, ping_interval_s=0.05)
    async with managed([A], settings=settings, start=True) as world:
        await world.use("a")
        await asyncio.wait_for(until(lambda: world.runners.of("a").pings >= 2), 5)


async def test_what_the_log_does_not_take_keeps_no_model_from_working(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that never answers delays a load by a bounded time."""
    monkeypatch.setattr("manent.adapters.inference.telling._TELL_S", 0.05)

    async def hangs(_: object) -> None:
        await asyncio.Event().wait()

    async with managed([A]) as world:
        world.manager._teller._on_event = hangs
        await asyncio.wait_for(world.use("a"), 5)


async def test_closing_is_bounded_where_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that does not end and a load that does not heed its cancellation: the server stops all the same."""
    monkeypatch.setattr("manent.adapters.inference.supervisor._ENDS_S", 0.1)
    release = asyncio.Event()

    async def never_ends(_: float) -> None:
        await release.wait()

    async with managed([A, B]) as world:
        await world.use("a")
        world.runners.of("a").aclose = never_ends  # type: ignore[method-assign, assignment]  # for this test
        world.runners.gate = Deaf(release)
        waiting = asyncio.create_task(world.use("b"))
        await asyncio.wait_for(until(lambda: "b" in world.runners.loads), 5)
        await asyncio.sleep(0.01)
        await asyncio.wait_for(world.manager.aclose(0.1), 5)
        release.set()
        with pytest.raises(EngineUnavailable):
            await asyncio.wait_for(waiting, 5)


class Deaf(asyncio.Event):
    """A wait that goes on when it is cancelled, as a defect or a library's code may."""

    def __init__(self, release: asyncio.Event) -> None:
        super().__init__()
        self._release = release

    async def wait(self) -> bool:  # type: ignore[override]  # a bool as well
        """Wait for the release, whatever comes."""
        while not self._release.is_set():
            try:
                await self._release.wait()
            except asyncio.CancelledError:
                continue
        raise asyncio.CancelledError


@pytest.mark.parametrize("seed", range(12))
async def test_random_lives_keep_the_rules(seed: int) -> None:
    """Requests, crashes, pins and unloads at random: nothing over the limit, nobody hangs, no lease stays behind."""
    rng = random.Random(seed)
    models = [model(name, size_bytes=rng.randint(10, 60)) for name in "abcdef"]
    names = [found.card.model_id for found in models]
    ended: list[str] = []

    async with managed(models, settings=replace(TWO_FIT, memory_wait_s=0.2), start=True) as world:

        async def request(name: str) -> None:
            try:
                async with world.used(name):
                    runner = world.runners.of(name)
                    for _ in range(rng.randint(0, 5)):
                        await asyncio.sleep(0)
                        assert not (runner.ends.is_set() and runner.alive)
                        assert not runner.ends.is_set() or runner.model_id in crashed
                        assert world.runners.held_bytes <= 100
            except DomainError:
                pass
            finally:
                ended.append(name)

        crashed: set[str] = set()
        requests = []
        for _ in range(200):
            name, action = rng.choice(names), rng.random()
            if action < 0.75:
                requests.append(asyncio.create_task(request(name)))
            elif action < 0.85 and name in world.runners.alive:
                crashed.add(name)
                await world.runners.of(name).crash()
            elif action < 0.95:
                with contextlib.suppress(ModelInUse):
                    await world.manager.unload(name, by="ann")
            else:
                await world.manager.pin(name, pinned=rng.random() < 0.3, by="ann")
            await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*requests), 60)
        assert len(ended) == len(requests)
        assert [world.manager.supervisor(name).leases for name in names] == [0] * len(names)
    assert world.runners.alive == []
