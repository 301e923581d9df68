"""One who follows a running completion."""

from __future__ import annotations

from manent.domain.usecases.running import RunningCompletion


class Reader:
    """One who follows a completion, and leaves it once."""

    def __init__(self, running: RunningCompletion) -> None:
        self.running = running
        self._left = False

    def leave(self, reason: str) -> None:
        """The reader is gone, for the first reason that is given."""
        if not self._left:
            self._left = True
            self.running.leave(reason)
