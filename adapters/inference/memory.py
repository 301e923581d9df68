"""What processes hold, what the machine has, and what a model is expected to need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from manent.adapters.inference.model_folder import weight_files
from manent.domain.residency import MemoryBudget

if TYPE_CHECKING:
    from manent.adapters.inference.registry import RegisteredModel

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

# Weights, and a fifth of them for what evaluation and prompts take; interpreter and libraries are the same for all.
_WEIGHTS_FACTOR = 1.2
_RUNNER_BYTES = 300 * 10**6

# The seed's machine has 512 GB, of which models get 400: of what is left, two thirds for everybody else.
_RESERVED_SHARE = 0.15
_MARGIN_SHARE = 0.07


def machine_budget(
    *, total_bytes: int | None = None, reserved_bytes: int | None = None, margin_bytes: int | None = None
) -> MemoryBudget:
    """The budget with what an operator decided; the rest follows from the machine, or the container."""
    total = machine_bytes() if total_bytes is None else total_bytes
    return MemoryBudget(
        total_bytes=total,
        reserved_bytes=int(total * _RESERVED_SHARE) if reserved_bytes is None else reserved_bytes,
        margin_bytes=int(total * _MARGIN_SHARE) if margin_bytes is None else margin_bytes,
    )


def machine_bytes() -> int:
    """The machine's memory, or what this container may use of it."""
    total = psutil.virtual_memory().total
    for file in _CGROUP_LIMITS:
        try:
            limit = int(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue  # no such group, or "max"
        total = min(total, limit)
    return total


def process_bytes(pid: int) -> int:
    """What a process has in memory now; 0 once it is gone.

    It is the resident set: pages that several runners share count for each, which errs on the safe side, and costs
    microseconds where exact shares cost a walk through all pages.
    """
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def expected_bytes(model: RegisteredModel, remembered_bytes: int | None) -> int | None:
    """What loading a model needs: what is set aside for it, else what it held before or what its files say.

    Of these two the smaller one: too little is noticed and mended after the load, too much would keep out for good a
    model that fits.
    """
    if model.memory_bytes is not None:
        return model.memory_bytes
    known = (estimated_bytes(model.path, model.draft), remembered_bytes)
    return min((size for size in known if size is not None), default=None)


def estimated_bytes(folder: Path, draft: Path | None = None) -> int | None:
    """What a model and its draft model are expected to need, by the size of their files; None where there are none."""
    folders = (folder,) if draft is None else (folder, draft)
    try:
        weights = sum(file.stat().st_size for each in folders for file in weight_files(each))
    except OSError:
        return None
    return int(weights * _WEIGHTS_FACTOR) + _RUNNER_BYTES if weights else None
