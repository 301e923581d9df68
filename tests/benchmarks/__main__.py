"""``make bench``: every figure of the README and of docs/reference/performance.md, from one run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from manent.adapters.inference.starter import install_starter
from tests.benchmarks import overhead_http


def main() -> None:
    """Run all benchmarks, one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = install_starter(Path(os.environ.get("MANENT_TEST_MODELS", ".cache/models")).absolute())
    overhead_http.compare(folder, tokens=options.tokens, rounds=options.rounds)


if __name__ == "__main__":
    main()
