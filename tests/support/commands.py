"""Commands of the command line, run in this process: most of what a command takes is otherwise its start."""

from __future__ import annotations

import atexit
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, nullcontext
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess

import typer
from typer.testing import CliRunner

from manent.app.cli.root import build_app
from tests.support.command_server import quick_command
from tests.support.server import environment


@cache
def command_line() -> typer.Typer:
    """All commands."""
    return build_app(None)


@cache
def forking_command() -> Path:
    """A ``manent`` whose processes have their imports behind them; there until this process ends."""
    kept = ExitStack()
    atexit.register(kept.close)
    file = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="manent-command-"))) / "manent"
    kept.enter_context(quick_command(file))
    return file


def manent(*arguments: str, home: Path, **settings: object) -> CompletedProcess[str]:
    """Run a command to its end, in its home; a defect in it is raised.

    ``sql`` bounds the memory of its process, and has a forked one to itself; ``serve`` needs one as well: see ``server``.
    """
    if arguments[0] == "sql":
        return subprocess.run(
            [forking_command(), *arguments],
            env=environment(home, **settings),
            cwd=home if home.is_dir() else None,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
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
