"""What takes a real runner's place in tests: facts to tell, and an interpreter that starts another module."""

from __future__ import annotations

import sys
from pathlib import Path

from manent.adapters.inference.protocol import RunnerFacts

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
        f'case "$*" in *{RUNNER_MODULE}*) shift 2; exec "{sys.executable}" -P "{file}" "$@";; esac\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    return str(python)
