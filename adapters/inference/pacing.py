"""How much of a prompt is evaluated in one step while others generate. Knows times and counts only."""

from __future__ import annotations

_SHORTEST, _LONGEST = 1.8, 2.5
"""A step with a chunk takes this much longer than one without; below three, so that there is room for chance."""
_GROWS, _SHRINKS = 1.25, 0.75
_FLOOR_SHARE = 8
_REMEMBERED = 0.8


class PrefillPace:
    """The size of chunks, found by measuring: those who generate wait at most about three times as long as usual.

    A chunk has ``most_tokens`` where nobody waits for it, and never less than an eighth of that: smaller ones would
    cost a device more than they spare those who wait.
    """

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._least_tokens = max(1, most_tokens // _FLOOR_SHARE)
        self._chunk_tokens = float(self._least_tokens)
        self._usual_s: float | None = None

    def chunk_tokens(self, *, decoding: bool) -> int:
        """How many tokens of each prompt the next step may evaluate."""
        return int(self._chunk_tokens) if decoding else self._most_tokens

    def took(self, step_s: float, *, decoding: bool, prefilled: bool) -> None:
        """A step that handed out tokens, evaluated pieces of prompts, or both, took so long."""
        if not decoding:
            return
        if not prefilled:
            usual_s = step_s if self._usual_s is None else self._usual_s
            self._usual_s = _REMEMBERED * usual_s + (1 - _REMEMBERED) * step_s
        elif self._usual_s is not None:
            longer = step_s / self._usual_s
            factor = _GROWS if longer < _SHORTEST else _SHRINKS if longer > _LONGEST else 1.0
            bounded = max(self._least_tokens, self._chunk_tokens * factor)
            self._chunk_tokens = min(self._most_tokens, bounded)
