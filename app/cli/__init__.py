"""The command line: ``manent``. One file per group of commands; ``main`` is the entry point."""

from __future__ import annotations

from manent.app.cli.root import main

__all__ = ["main"]
