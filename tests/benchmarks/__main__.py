"""``make bench``: every figure of the README and of docs/reference/performance.md, from one run.

make bench                        all of it, about half an hour on two cores
make bench ARGS="http --rounds 9"  one part
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from manent.adapters.inference.starter import install_starter
from tests.benchmarks import (
    appends,
    audit,
    context,
    engine_streams,
    export,
    overhead_http,
    overhead_telemetry,
    prefix_cache,
    tail,
    turns,
)

PARTS = ("http", "streams", "prefix", "appends", "tail", "audit", "export", "context", "turns", "telemetry")


def main() -> None:
    """Run the parts, one after another, on a machine that does nothing else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    folder = install_starter(Path(os.environ.get("MANENT_TEST_MODELS", ".cache/models")).absolute())
    if "http" in options.part:
        overhead_http.compare(folder, tokens=options.tokens, rounds=options.rounds)
    if "streams" in options.part:
        sys.stdout.write("\nSeveral streams at once, beside mlx-lm:\n")
        engine_streams.run(folder, tokens=64, rounds=options.rounds, requests=500)
    if "appends" in options.part:
        sys.stdout.write("\nAppends beside the raw driver:\n")
        appends.compare(rounds=options.rounds)
    if "tail" in options.part:
        sys.stdout.write("\nFrom commit to delivery over /v1/events/stream:\n")
        tail.compare(options.rounds)
    if "audit" in options.part:
        sys.stdout.write("\nThe log at 10,000 and at 1,000,000 events:\n")
        audit.compare(rounds=options.rounds)
    if "export" in options.part:
        sys.stdout.write("\nExports beside pyarrow writing from memory:\n")
        export.compare(rounds=options.rounds)
    if "context" in options.part:
        sys.stdout.write("\nContexts, and their rebuild:\n")
        context.compare(rounds=options.rounds)
    if "turns" in options.part:
        sys.stdout.write("\nTurns of a long session:\n")
        turns.compare()
    if "telemetry" in options.part:
        sys.stdout.write("\nMetrics, logs and traces:\n")
        overhead_telemetry.compare(rounds=options.rounds)
    if "prefix" in options.part:
        sys.stdout.write("\nThe prefix cache:\n")
        prefix_cache.compare(folder, rounds=min(options.rounds, 3))


if __name__ == "__main__":
    main()
