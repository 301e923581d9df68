"""Which messages of a conversation a completion was given: a part of ``CompletionRequested``."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.generation import Truncation


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedMessages:
    """Messages in a row that the model does not see, from the first to the last of ``count``."""

    first_message_id: str
    last_message_id: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextUsed:
    """Which stored messages the model sees, in order, and which were left out to fit its window."""

    message_ids: tuple[str, ...]
    dropped: DroppedMessages | None
    truncation: Truncation
