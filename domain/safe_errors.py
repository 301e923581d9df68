"""What of an exception may stand in a log: where it came from and what it is, and never what it says.

The message of a KeyError is a key, that of a database's error holds the statement's parameters: words of a conversation
reach logs this way in other servers. What is told instead is enough to find the place.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator

from manent.domain.errors import DomainError

CHAIN_MAX = 8
FRAMES_MAX = 40

# What Python, C++ and MLX (on Metal and on a CPU) say when an allocation fails.
OUT_OF_MEMORY = re.compile(
    r"MemoryError|bad_alloc|out of memory|Insufficient Memory|\[(?:metal::)?malloc|Unable to allocate", re.IGNORECASE
)


def safe_name(error: BaseException) -> str:
    """The type and, where it cannot hold anybody's words, a domain error's code, the system's message, a module."""
    name = type(error).__name__
    if isinstance(error, DomainError):
        return f"{name} ({error.code})"
    if isinstance(error, OSError) and isinstance(error.errno, int):
        return f"{name}: [Errno {error.errno}] {os.strerror(error.errno)}"
    if isinstance(error, ImportError):
        return f"{name}: {error.name}"
    if OUT_OF_MEMORY.search(str(error)):
        return f"{name}: out of memory"
    return name


def safe_traceback(error: BaseException) -> str:
    """The traceback of ``error`` and of what it came from, first cause first, without messages and values."""
    chain = list(_chain(error))
    parts = [
        "Traceback (most recent call last):\n"
        + "".join(traceback.format_tb(one.__traceback__, limit=-FRAMES_MAX))
        + safe_name(one)
        for one in reversed(chain)
    ]
    return "\n\nwhich led to\n\n".join(parts)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(CHAIN_MAX):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
