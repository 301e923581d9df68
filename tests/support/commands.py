"""Commands of the command line, run in this process: most of what a command takes is otherwise its start."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, nullcontext
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess

import typer
from typer.testing import CliRunner

from manent.app.cli.root import build_app
from tests.support.server import environment, manent_process


@cache
def command_line() -> typer.Typer:
    """All commands."""
    return build_app(None)


def manent(*arguments: str, home: Path, **settings: object) -> CompletedProcess[str]:
    """Run a command to its end, in its home; a defect in it is raised.

    ``sql`` bounds the memory of its process, and has one to itself; ``serve`` needs one as well: see ``server``.
    """
    if arguments[0] == "sql":
        return manent_process(*arguments, home=home, **settings)
    with ThreadPoolExecutor(max_workers=1) as thread:  # the caller may be in an event loop, and commands run their own
        return thread.submit(_run, arguments, home, settings).result()


def _run(arguments: tuple[str, ...], home: Path, settings: dict[str, object]) -> CompletedProcess[str]:
    given = environment(home, **settings)
    others = {name: None for name in os.environ if name not in given}
    with chdir(home) if home.is_dir() else nullcontext():
        done = CliRunner().invoke(
            command_line(), arguments, env={**others, **given}, prog_name="manent", catch_exceptions=False
        )
    return CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
