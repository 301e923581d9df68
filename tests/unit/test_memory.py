"""What the machine has, what processes hold, what a model is expected to need."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from manent.adapters.inference import memory
from manent.adapters.inference.memory import expected_bytes, machine_budget, machine_bytes, process_bytes
from tests.support.fake_runners import model


def test_the_budget_follows_from_the_machine() -> None:
    """Models get 78 %, as on the machine of the seed; whatever an operator decides is taken as it is."""
    budget = machine_budget(total_bytes=512 * 10**9)
    assert budget.models_bytes / 1e9 == pytest.approx(400, rel=0.01)
    own = machine_budget(total_bytes=100, reserved_bytes=0, margin_bytes=5)
    assert (own.models_bytes, own.limit_bytes) == (95, 100)
    assert machine_budget().total_bytes == machine_bytes()


@pytest.mark.parametrize(("text", "limited"), [("1000000\n", True), ("max\n", False), (f"{2**63 - 4096}\n", False)])
def test_a_container_has_what_it_may_use(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str,
    limited: bool,  # noqa: FBT001 (a parameter)
) -> None:
    """Its limit counts where it has one, and is read anew each time."""
    whole = machine_bytes()
    file = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (tmp_path / "none", file))
    file.write_text(text)
    assert machine_bytes() == (1_000_000 if limited else whole)


def test_a_process_holds_something_until_it_is_gone() -> None:
    """Its resident set, and nothing for an id that is no process."""
    assert process_bytes(os.getpid()) > 10_000_000
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert process_bytes(gone.pid) == 0


def test_the_smaller_of_estimate_and_experience_is_expected(tmp_path: Path) -> None:
    """What is set aside goes before both; without files or a past nothing is known."""
    unknown = replace(model("m"), path=tmp_path / "m")
    assert expected_bytes(unknown, None) is None
    assert expected_bytes(unknown, 5) == 5
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(bytes(1000))
    assert expected_bytes(unknown, None) == 1200 + 300 * 10**6
    assert expected_bytes(unknown, 10**6) == 10**6
    assert expected_bytes(unknown, 10**12) == 1200 + 300 * 10**6
    assert expected_bytes(replace(unknown, memory_bytes=7), 10**6) == 7
