"""Models in turns: 200 random load, generate, unload and kill steps on a server with memory for half of its models.

    python -m tests.benchmarks.models [--steps 200] [--models 5] [--seed 1]

Prints what came of the steps, and what the server held before and after: memory, descriptors, processes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from manent.adapters.inference.starter import install_starter
from tests.support.churn import Churn, Footprint, make_home
from tests.support.server import serving

REPOSITORY = Path(__file__).parents[2]


async def run(home: Path, names: list[str], *, steps: int, seed: int) -> None:
    """Learn what each model answers alone, churn, and compare."""
    with serving(home, memory_total_gb=1000) as server:
        alone = Churn(server, names)
        await alone.learn()
    need_gb = sum(alone.memory_bytes.values()) / 1e9
    with serving(
        home, memory_total_gb=need_gb / 2, memory_reserved_gb=0, memory_margin_gb=0, memory_wait_s=20
    ) as server:
        churn = Churn(server, names)
        await churn.learn()
        await churn.run(steps // 10, seed=seed + 1)  # warms the server up: what it imports and caches once is no leak
        await churn.settle()
        churn.outcomes.clear()
        before, began_s = Footprint.of(server.pid), time.monotonic()
        await churn.run(steps, seed=seed)
        took_s = time.monotonic() - began_s
        await churn.settle()
        after = Footprint.of(server.pid)
    change = 100 * (after.memory_bytes / before.memory_bytes - 1)
    lines = [
        f"models     {len(names)}, together {need_gb:.2f} GB; memory for {need_gb / 2:.2f} GB",
        f"steps      {steps} in {took_s:.0f} s: " + ", ".join(f"{k} {v}" for k, v in sorted(churn.outcomes.items())),
        f"ended      {sum(churn.outcomes.values())} of {steps}; wrong answers {len(churn.wrong)}",
        f"memory     {before.memory_bytes / 1e6:.1f} MB before, {after.memory_bytes / 1e6:.1f} after ({change:+.1f} %)",
        f"left       descriptors {after.descriptors - before.descriptors:+d}, processes {after.children}",
        *churn.wrong,
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    starter = install_starter(REPOSITORY / ".cache" / "models")
    with tempfile.TemporaryDirectory() as folder:
        names = make_home(Path(folder), starter=starter, models=options.models)
        asyncio.run(run(Path(folder), names, steps=options.steps, seed=options.seed))


if __name__ == "__main__":
    main()
