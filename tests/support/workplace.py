"""Where and how the tests' processes run: temporary files in memory, compiled modules kept, one thread of BLAS each.

Where every commit reaches a real disk, a worker waits for it half as long as it computes, and no test pulls the
machine's plug: what a killed process wrote is there after it also in memory. A server that compiles all that it imports
takes twice as long to start: Python keeps what it compiled unless it is told not to, as images of containers do. And
two workers whose matrix multiplications each start a thread per core are in each other's way.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 (a file system in memory, on Linux)
FREE_MIN_BYTES = 6 * 2**30
"""What the tests of two workers write at most at a time, models that they convert included, with a margin."""


def pytest_configure() -> None:
    """Choose, before anything asks for a temporary file; what the environment says already is left as it is."""
    if "TMPDIR" not in os.environ and _fits(MEMORY):
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _fits(folder: Path) -> bool:
    """Whether it is there, has room for the tests, and runs the programs that some of them write."""
    if not os.access(folder, os.W_OK | os.X_OK) or not isinstance(getattr(os, "ST_NOEXEC", None), int):
        return False
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC and shutil.disk_usage(folder).free >= FREE_MIN_BYTES
