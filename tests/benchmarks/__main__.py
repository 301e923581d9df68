"""``make bench``: every figure of the README and of docs/reference/performance.md, from one run.

make bench                        all of it, about half an hour on two cores
make bench ARGS="http --rounds 9"  one part
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
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

Run = Callable[[argparse.Namespace, Path], None]

# Each part's title, "" for one that prints its own, and what it runs with the options and the starter model's folder.
PARTS: dict[str, tuple[str, Run]] = {
    "http": ("", lambda asked, folder: overhead_http.compare(folder, tokens=asked.tokens, rounds=asked.rounds)),
    "streams": (
        "Several streams at once, beside mlx-lm",
        lambda asked, folder: engine_streams.run(folder, tokens=64, rounds=asked.rounds, requests=500),
    ),
    "appends": ("Appends beside the raw driver", lambda asked, _: appends.compare(rounds=asked.rounds)),
    "tail": ("From commit to delivery over /v1/events/stream", lambda asked, _: tail.compare(asked.rounds)),
    "audit": ("The log at 10,000 and at 1,000,000 events", lambda asked, _: audit.compare(rounds=asked.rounds)),
    "export": ("Exports beside pyarrow writing from memory", lambda asked, _: export.compare(rounds=asked.rounds)),
    "context": ("Contexts, and their rebuild", lambda asked, _: context.compare(rounds=asked.rounds)),
    "turns": ("Turns of a long session", lambda *_: turns.compare()),
    "telemetry": ("", lambda asked, _: overhead_telemetry.compare(rounds=asked.rounds)),
    "prefix": (
        "The prefix cache",
        lambda asked, folder: prefix_cache.compare(folder, rounds=min(asked.rounds, 3)),
    ),
}


def main() -> None:
    """Run the parts, one after another, on a machine that does nothing else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    folder = install_starter(Path(os.environ.get("MANENT_TEST_MODELS", ".cache/models")).absolute())
    for name, (title, run) in PARTS.items():
        if name in options.part:
            if title:
                sys.stdout.write(f"\n{title}:\n")
            run(options, folder)


if __name__ == "__main__":
    main()
