"""Where a command's bytes go: standard output, or a file that has its name only once it is whole."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

STANDARD_OUTPUT = Path("-")


@contextmanager
def whole_output(path: Path) -> Generator[IO[bytes], None, None]:
    """A file to write ``path``, or standard output for ``-``.

    The file is written under a hidden name beside its own, and renamed at the end, on the disk for certain. Where
    anything goes wrong it is removed, and what stood under the name before still stands there. What is no regular
    file (a pipe, a device) is written as it is.

    Raises:
        OSError: it cannot be written; BrokenPipeError where whoever reads standard output has gone.
    """
    if path == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    path = path.resolve()  # the file that a link names is replaced, and not the link
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
