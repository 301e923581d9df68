"""Who gets to the model first: priorities, and what a request is told of its wait."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from manent.domain.made_often import made_often


class Priority(StrEnum):
    """Classes of requests: somebody waits for an interactive one, a batch can wait, and what is in the background takes
    only places that nobody else waits for."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
    BACKGROUND = "background"


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlace:
    """How a request came to its place: at which model, how many were ahead of it, and how long it waited for that."""

    model_id: str = ""
    position: int = 0
    waited_s: float = 0.0
