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
    drafts,
    engine_streams,
    export,
    overhead_chain,
    overhead_http,
    overhead_requests,
    overhead_telemetry,
    prefill,
    prefix_cache,
    stream_buffers,
    structured,
    tail,
    turns,
)


def parts_of(folder: Path, *, tokens: int, rounds: int) -> dict[str, tuple[str, Callable[[], None]]]:
    """What each part is headed with, and what measures and prints it."""
    return {
        "http": ("", lambda: overhead_http.compare(folder, tokens=tokens, rounds=rounds)),
        "chain": ("What everything around a handler costs", lambda: overhead_chain.compare(rounds=rounds)),
        "streams": (
            "Several streams at once, beside mlx-lm",
            lambda: engine_streams.run(folder, tokens=64, rounds=rounds, requests=500),
        ),
        "requests": ("Requests without a model", lambda: overhead_requests.compare(rounds=rounds)),
        "buffers": ("Streams that survive", lambda: stream_buffers.compare(folder, rounds=rounds)),
        "prefill": ("While a long prompt is read", lambda: prefill.compare(folder, rounds=rounds)),
        "appends": ("Appends beside the raw driver", lambda: appends.compare(rounds=rounds)),
        "tail": ("From commit to delivery over /v1/events/stream", lambda: tail.compare(rounds)),
        "audit": ("The log at 10,000 and at 1,000,000 events", lambda: audit.compare(rounds=rounds)),
        "export": ("Exports beside pyarrow writing from memory", lambda: export.compare(rounds=rounds)),
        "context": ("Contexts, and their rebuild", lambda: context.compare(rounds=rounds)),
        "turns": ("Turns of a long session", turns.compare),
        "telemetry": ("", lambda: overhead_telemetry.compare(rounds=rounds)),
        "prefix": ("The prefix cache", lambda: prefix_cache.compare(folder, rounds=min(rounds, 3))),
        "structured": (
            "Formats and log probabilities beside free output",
            lambda: structured.compare(folder, tokens=48, rounds=rounds),
        ),
        "drafts": ("Draft models, one stream", lambda: drafts.compare(folder, tokens=48, rounds=rounds)),
    }


def main() -> None:
    """Run the parts, one after another, on a machine that does nothing else."""
    folder = Path(os.environ.get("MANENT_TEST_MODELS", ".cache/models")).absolute()
    names = list(parts_of(folder, tokens=1, rounds=1))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*names, []], default=names)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    parts = parts_of(install_starter(folder), tokens=options.tokens, rounds=options.rounds)
    for name in names:
        if name in options.part:
            heading, measure = parts[name]
            sys.stdout.write(f"\n{heading}:\n" if heading else "")
            measure()


if __name__ == "__main__":
    main()
