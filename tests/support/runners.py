"""Runners as processes: which there are, and what takes a real one's place."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import psutil

from manent.adapters.inference.protocol import RunnerFacts

REPOSITORY = Path(__file__).parents[2]
RUNNER_MODULE = "manent.adapters.inference.runner"


def runner_facts(*, memory_bytes: int = 1) -> RunnerFacts:
    """Facts of a model that is not there."""
    return RunnerFacts(
        context_length=None,
        vocabulary_size=10,
        weights_digest="sha256:0",
        tokenizer_digest="sha256:0",
        template_digest="sha256:0",
        versions={},
        device="none",
        dtype="none",
        quantization=None,
        memory_bytes=memory_bytes,
        load_s=0.0,
    )


def python_with_runner(folder: Path, file: str) -> str:
    """An interpreter, made in ``folder``, that starts ``file`` where it is asked for the runner."""
    python = folder / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *{RUNNER_MODULE}*) shift 2; export PYTHONPATH="{REPOSITORY}"; '
        f'exec "{sys.executable}" -P "{file}" "$@";; esac\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    return str(python)


def runs(pid: int) -> bool:
    """Whether there is such a process, and not only its remains."""
    try:
        return psutil.Process(pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return False


def runners_of(pid: int) -> list[int]:
    """The runner processes that a process started and that still run."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):  # it ended meanwhile
            if RUNNER_MODULE in child.cmdline() and runs(child.pid):
                found.append(child.pid)
    return found
