"""What happens to a stored completion after its end: its owner changes its metadata, or has it hidden.

These events stand in a stream of their own, ``stored-<completion id>``: they do not change the conversation that a
completion belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCompletionChanged:
    """The metadata of a stored completion is this from now on."""

    completion_id: str
    metadata: dict[str, str]
    changed_by: str
    changed_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCompletionDeleted:
    """A stored completion is not shown any more; what was recorded of it stays in the log."""

    completion_id: str
    deleted_by: str
    deleted_at_us: int


StoredCompletionEvent = StoredCompletionChanged | StoredCompletionDeleted


def stored_stream(completion_id: str) -> str:
    """The stream of what happens to a stored completion after its end."""
    return f"stored-{completion_id}"
