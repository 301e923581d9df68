"""Stop strings in streamed text: what may be shown, what must wait, and where the text ends."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Lets text through up to the first stop string that is completed in it.

    The stop string that is completed first wins; of several completed by the same character, the longest, so that
    none of it is shown. That makes the result independent of how the text was cut into pieces. Text is held back
    only while it is the beginning of a stop string, and never longer.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise ValueError("a stop string must not be empty")
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.stopped_by: str | None = None
        """The stop string that was completed."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was completed; all later text is dropped."""
        return self.stopped_by is not None

    def push(self, text: str) -> str:
        """Take the next piece of text in, and give back what became certain."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        seen = self._held + text
        end = self._first_stop(seen)
        if end is not None:
            start, self.stopped_by = end
            self._held = ""
            return seen[:start]
        certain = len(seen) - self._ambiguous_length(seen)
        self._held = seen[certain:]
        return seen[:certain]

    def finish(self) -> str:
        """What was held back when the text ended: it did not become a stop string after all."""
        held, self._held = self._held, ""
        return held

    def _first_stop(self, seen: str) -> tuple[int, str] | None:
        """Where the text ends if a stop string is completed in it, and which one that is."""
        found = [(start + len(stop), start, stop) for stop in self._stops if (start := seen.find(stop)) >= 0]
        return min(found)[1:] if found else None

    def _ambiguous_length(self, seen: str) -> int:
        """The length of the longest end of ``seen`` with which some stop string begins."""
        for length in range(min(self._longest - 1, len(seen)), 0, -1):
            ending = seen[-length:]
            if any(stop.startswith(ending) for stop in self._stops):
                return length
        return 0
