"""Which models stay in memory: single decisions, and random lives of many models under one budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from manent.domain.residency import (
    Admit,
    MemoryBudget,
    Phase,
    Refuse,
    Resident,
    Wait,
    decide_idle,
    decide_residency,
    decide_trim,
    held_bytes,
)

BUDGET = MemoryBudget(total_bytes=130, reserved_bytes=20, margin_bytes=10)


def loaded(model_id: str, size_bytes: int, *, used_s: float = 0.0, leases: int = 0, pinned: bool = False) -> Resident:
    """A model in memory."""
    return Resident(
        model_id=model_id,
        phase=Phase.LOADED,
        memory_bytes=size_bytes,
        leases=leases,
        pinned=pinned,
        last_used_s=used_s,
    )


def decide(residents: list[Resident], needed_bytes: int) -> Admit | Wait | Refuse:
    """The decision for a model called new."""
    return decide_residency(residents, model_id="new", needed_bytes=needed_bytes, budget=BUDGET)


def test_the_budget_leaves_out_what_is_reserved_and_the_margin() -> None:
    """Models are loaded into 100 of 130, and may grow to 110."""
    assert (BUDGET.models_bytes, BUDGET.limit_bytes) == (100, 110)


def test_what_fits_is_loaded_and_nothing_goes_for_it() -> None:
    """To the last byte."""
    assert decide([loaded("a", 60)], 40) == Admit()


def test_the_least_recently_used_goes_first() -> None:
    """And no more than needed."""
    residents = [loaded("a", 40, used_s=3), loaded("b", 30, used_s=1), loaded("c", 30, used_s=2)]
    assert decide(residents, 30) == Admit(evict=("b",))
    assert decide(residents, 50) == Admit(evict=("b", "c"))


def test_none_goes_in_vain() -> None:
    """A small one is spared where a larger one has to go anyway."""
    assert decide([loaded("small", 10, used_s=1), loaded("large", 80, used_s=2)], 50) == Admit(evict=("large",))


@pytest.mark.parametrize(
    "busy", [loaded("a", 80, leases=1), Resident(model_id="a", phase=Phase.LOADING, memory_bytes=80)]
)
def test_what_is_in_use_or_loading_is_waited_for(busy: Resident) -> None:
    """It will end; until then nothing is unloaded, and the reason names who holds what."""
    decision = decide([busy, loaded("b", 10)], 50)
    assert isinstance(decision, Wait)
    assert "a holds 0.00 GB" in decision.reason


def test_what_is_being_unloaded_counts_as_free() -> None:
    """Nobody else has to go for what is on its way; the load begins when that is gone."""
    going = Resident(model_id="a", phase=Phase.UNLOADING, memory_bytes=60)
    assert decide([going, loaded("b", 40)], 60) == Admit()


def test_pins_hold() -> None:
    """A pinned model goes for nobody: what does not fit beside it is refused at once."""
    decision = decide([loaded("a", 60, pinned=True)], 50)
    assert isinstance(decision, Refuse)
    assert "pinned" in decision.reason
    assert isinstance(decide([], 101), Refuse)


def test_growth_over_the_budget_unloads_who_is_unused() -> None:
    """Nobody goes while all fit; then the least recently used, never one in use."""
    residents = [loaded("a", 50, used_s=1, leases=1), loaded("b", 30, used_s=2), loaded("c", 15, used_s=3)]
    assert decide_trim(residents, budget=BUDGET) == ()
    residents[0] = replace(residents[0], memory_bytes=70)
    assert decide_trim(residents, budget=BUDGET) == ("b",)


def test_idle_models_go_when_their_time_is_over() -> None:
    """Not while in use, not before, and without a timeout never."""
    idle = replace(loaded("a", 1, used_s=10), idle_timeout_s=5.0)
    busy = replace(idle, model_id="b", leases=1)
    assert decide_idle([idle, busy, loaded("c", 1)], now_s=14.9) == ()
    assert decide_idle([idle, busy, loaded("c", 1)], now_s=15.0) == ("a",)


@dataclass
class Model:
    """A model of the simulation; ``size_bytes`` is what it really holds once it is loaded."""

    size_bytes: int
    phase: Phase = Phase.UNLOADED
    leases: int = 0
    pinned: bool = False
    used_s: float = 0.0
    held_bytes: int = 0


class Residency(RuleBasedStateMachine):
    """A manager that follows the decisions to the letter, and clients, operators and crashes that do as they please."""

    models = Bundle("models")

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Model] = {}
        self.now_s = 0.0

    def residents(self) -> list[Resident]:
        """What the decisions see."""
        return [
            Resident(
                model_id=name,
                phase=model.phase,
                memory_bytes=model.held_bytes,
                leases=model.leases,
                pinned=model.pinned,
                last_used_s=model.used_s,
                idle_timeout_s=5.0,
            )
            for name, model in self.known.items()
        ]

    def evict(self, names: tuple[str, ...]) -> None:
        """Begin to unload, as the manager does; here it shows whether that was allowed."""
        for name in names:
            model = self.known[name]
            assert model.phase is Phase.LOADED, name
            assert model.leases == 0, f"{name} is in use"
            assert not model.pinned, f"{name} is pinned"
            model.phase = Phase.UNLOADING

    @rule(target=models, size_bytes=st.integers(1, 120))
    def register(self, size_bytes: int) -> str:
        """A model of the registry."""
        name = f"m{len(self.known)}"
        self.known[name] = Model(size_bytes)
        return name

    @rule(name=models, guess_bytes=st.integers(0, 30))
    def want(self, name: str, guess_bytes: int) -> None:
        """A request: it uses what is loaded, or asks for a load; what is expected may be wrong."""
        model = self.known[name]
        self.now_s += 1
        if model.phase is Phase.LOADED:
            model.leases += 1
            return
        if model.phase is not Phase.UNLOADED:
            return
        needed_bytes = max(1, model.size_bytes - guess_bytes)
        before = [found for found in self.residents() if found.phase is not Phase.UNLOADING]
        decision = decide_residency(self.residents(), model_id=name, needed_bytes=needed_bytes, budget=BUDGET)
        evictable_bytes = held_bytes(found for found in before if found.evictable)
        fits_after_all = held_bytes(before) - evictable_bytes + needed_bytes <= BUDGET.models_bytes
        assert isinstance(decision, Admit) == fits_after_all
        if isinstance(decision, Refuse):
            pinned_bytes = held_bytes(found for found in before if found.pinned)
            assert pinned_bytes + needed_bytes > BUDGET.models_bytes
        if isinstance(decision, Admit):
            self.evict(decision.evict)
            model.phase, model.held_bytes, model.leases = Phase.LOADING, needed_bytes, 1
            staying = held_bytes(found for found in self.residents() if found.phase is not Phase.UNLOADING)
            assert staying <= BUDGET.models_bytes

    @rule(name=models)
    def load_ends(self, name: str) -> None:
        """The load succeeds, and it shows what the model really holds."""
        if self.known[name].phase is Phase.LOADING:
            self.known[name].phase = Phase.LOADED
            self.known[name].held_bytes = self.known[name].size_bytes
            self.known[name].used_s = self.now_s

    @rule(name=models)
    def request_ends(self, name: str) -> None:
        """A lease is given back."""
        if self.known[name].leases and self.known[name].phase is Phase.LOADED:
            self.known[name].leases -= 1
            self.known[name].used_s = self.now_s

    @rule(name=models)
    def unload_ends(self, name: str) -> None:
        """A process is gone."""
        if self.known[name].phase is Phase.UNLOADING:
            self.known[name].phase, self.known[name].held_bytes = Phase.UNLOADED, 0

    @rule(name=models)
    def crash(self, name: str) -> None:
        """A process is gone unasked, and its requests with it."""
        if self.known[name].phase in {Phase.LOADED, Phase.LOADING}:
            self.known[name] = replace(self.known[name], phase=Phase.UNLOADED, held_bytes=0, leases=0)

    @rule(name=models, pinned=st.booleans())
    def pin(self, name: str, pinned: bool) -> None:  # noqa: FBT001 (a drawn value)
        """An operator pins or unpins."""
        self.known[name].pinned = pinned

    @rule(seconds=st.floats(0, 10))
    def watch(self, seconds: float) -> None:
        """Time goes by: what is idle goes, and what is too much."""
        self.now_s += seconds
        self.evict(decide_idle(self.residents(), now_s=self.now_s))
        self.evict(decide_trim(self.residents(), budget=BUDGET))
        over_bytes = held_bytes(r for r in self.residents() if r.phase is not Phase.UNLOADING) - BUDGET.models_bytes
        assert over_bytes <= 0 or not any(resident.evictable for resident in self.residents())

    @invariant()
    def leases_are_at_models_in_memory(self) -> None:
        """Nobody uses what is not there."""
        for model in self.known.values():
            assert not model.leases or model.phase in {Phase.LOADED, Phase.LOADING}


Residency.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestResidency = Residency.TestCase
