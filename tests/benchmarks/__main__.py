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
    overhead_chain,
    overhead_http,
    prefix_cache,
    tail,
    turns,
)

PARTS = ("http", "chain", "streams", "prefix", "appends", "tail", "audit", "export", "context", "turns")


def main() -> None:
    """Run the parts, one after another, on a machine that does nothing else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    folder = install_starter(Path(os.environ.get("MANENT_TEST_MODELS", ".cache/models")).absolute())
    for part, (title, run) in _parts(folder, rounds=options.rounds, tokens=options.tokens).items():
        if part in options.part:
            sys.stdout.write(f"\n{title}:\n" if title else "")
            run()


def _parts(folder: Path, *, rounds: int, tokens: int) -> Mapping[str, tuple[str, Callable[[], None]]]:
    """Each part's title and what runs it, in their order."""
    return {
        "http": ("", lambda: overhead_http.compare(folder, tokens=tokens, rounds=rounds)),
        "chain": ("What everything around a handler costs", lambda: overhead_chain.compare(rounds=rounds)),
        "streams": (
            "Several streams at once, beside mlx-lm",
            lambda: engine_streams.run(folder, tokens=64, rounds=rounds, requests=500),
        ),
        "appends": ("Appends beside the raw driver", lambda: appends.compare(rounds=rounds)),
        "tail": ("From commit to delivery over /v1/events/stream", lambda: tail.compare(rounds)),
        "audit": ("The log at 10,000 and at 1,000,000 events", lambda: audit.compare(rounds=rounds)),
        "export": ("Exports beside pyarrow writing from memory", lambda: export.compare(rounds=rounds)),
        "context": ("Contexts, and their rebuild", lambda: context.compare(rounds=rounds)),
        "turns": ("Turns of a long session", turns.compare),
        "prefix": ("The prefix cache", lambda: prefix_cache.compare(folder, rounds=min(rounds, 3))),
    }


if __name__ == "__main__":
    main()
