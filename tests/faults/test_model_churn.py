"""Twice the models that memory allows, used and killed at random: right answers, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.churn import Churn, Footprint, make_home
from tests.support.server import serving

STEPS = 30


@pytest.mark.timeout(600)
@pytest.mark.long
async def test_models_that_do_not_fit_together_take_turns(starter_model: Path, tmp_path: Path) -> None:
    """No wrong answer, every request ended, no process and no descriptor left; what memory allows is kept to."""
    names = make_home(tmp_path, starter=starter_model, models=4)
    with serving(
        tmp_path, memory_total_gb=0.4, memory_reserved_gb=0, memory_margin_gb=0, memory_wait_s=20, idle_timeout_s=0
    ) as server:
        churn = Churn(server, names)
        await churn.learn()
        assert sum(churn.memory_bytes.values()) > 1.5 * 0.4e9
        assert len(set(churn.answers.values())) == len(names)
        await churn.settle()
        before = Footprint.of(server.pid)
        await churn.run(STEPS, seed=1)
        await churn.settle()
        after = await churn.settled_footprint(before)
        assert churn.wrong == []
        assert churn.outcomes["generate ok"] > STEPS // 4
        assert (after.children, after.descriptors) == (0, before.descriptors)
        assert after.memory_bytes < 1.2 * before.memory_bytes
