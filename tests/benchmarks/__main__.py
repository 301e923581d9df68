"""``make bench``: every figure of the README and of docs/reference/performance.md, from one run.

make bench                        all of it, about half an hour on two cores
make bench ARGS="http --rounds 9"  one part
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from manent.adapters.inference.starter import install_starter
from tests.benchmarks import (
    appends,
    audit,
    context,
    engine_streams,
    export,
    overhead_http,
    prefix_cache,
    stream_buffers,
    tail,
    turns,
)

Part = Callable[[Path, argparse.Namespace], None]
PARTS: Mapping[str, tuple[str, Part]] = {
    "http": (
        "A completion over HTTP beside bare mlx-lm",
        lambda folder, asked: overhead_http.compare(folder, tokens=asked.tokens, rounds=asked.rounds),
    ),
    "streams": (
        "Several streams at once, beside mlx-lm",
        lambda folder, asked: engine_streams.run(folder, tokens=64, rounds=asked.rounds, requests=500),
    ),
    "buffers": ("Streams that survive", lambda folder, asked: stream_buffers.compare(folder, rounds=asked.rounds)),
    "prefix": (
        "The prefix cache",
        lambda folder, asked: prefix_cache.compare(folder, rounds=min(asked.rounds, 3)),
    ),
    "appends": ("Appends beside the raw driver", lambda _, asked: appends.compare(rounds=asked.rounds)),
    "tail": ("From commit to delivery over /v1/events/stream", lambda _, asked: tail.compare(asked.rounds)),
    "audit": ("The log at 10,000 and at 1,000,000 events", lambda _, asked: audit.compare(rounds=asked.rounds)),
    "export": ("Exports beside pyarrow writing from memory", lambda _, asked: export.compare(rounds=asked.rounds)),
    "context": ("Contexts, and their rebuild", lambda _, asked: context.compare(rounds=asked.rounds)),
    "turns": ("Turns of a long session", lambda *_: turns.compare()),
}


def main() -> None:
    """Run the parts, one after another, on a machine that does nothing else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    asked = parser.parse_args()
    folder = install_starter(Path(os.environ.get("MANENT_TEST_MODELS", ".cache/models")).absolute())
    for name in asked.part:
        title, run = PARTS[name]
        sys.stdout.write(f"\n{title}:\n")
        run(folder, asked)


if __name__ == "__main__":
    main()
