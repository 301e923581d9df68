"""After an evaluation failed: which request was it? Found by trying them one by one. Knows ids and counts only.

A batch is evaluated as one, so its failure says nothing about who caused it. All that were in it are put off, and come
back one at a time; each is on trial until it has got a few tokens on its own or beside those that passed already. A
failure during a trial is that request's. A failure with one request in the batch is that one's, without any trial.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

TRIAL_TOKENS = 3
"""The token that could not be evaluated was chosen, and not handed out, when its evaluation failed: the second one of a
trial is behind it, and errors of asynchronous evaluation surface a step late."""

UNEXPLAINED_MAX = 3
"""So many failures in a row in which every request passed its trial are a fault of the batch: all of it fails."""


class Trials:
    """Who may be evaluated."""

    def __init__(self) -> None:
        self._put_off: deque[int] = deque()
        self._on_trial: int | None = None
        self._passes_at_tokens = 0
        self._unexplained = 0

    @property
    def admits_newcomers(self) -> bool:
        """Whether a request may join at once; during trials it is put off, so that a failure stays explainable."""
        return self._on_trial is None and not self._put_off

    def put_off(self, request_id: int) -> None:
        """Let a request wait for its own trial."""
        self._put_off.append(request_id)

    def next(self, tokens: Mapping[int, int]) -> int | None:
        """The request whose trial begins now, if one's does.

        Args:
            tokens: how many tokens each request that is left was given so far.
        """
        if self._on_trial is not None and tokens[self._on_trial] < self._passes_at_tokens:
            return None
        self._on_trial = self._put_off.popleft() if self._put_off else None
        if self._on_trial is not None:
            self._passes_at_tokens = tokens[self._on_trial] + TRIAL_TOKENS
        return self._on_trial

    def failed(self, evaluated: Sequence[int]) -> list[int]:
        """An evaluation of these requests failed: those that it is blamed on; the others are put off."""
        blamed: list[int] = []
        if len(evaluated) == 1:
            blamed = list(evaluated)
        elif self._on_trial is not None:
            blamed = [self._on_trial]
        self._unexplained = 0 if blamed else self._unexplained + 1
        if self._unexplained >= UNEXPLAINED_MAX:
            self._unexplained = 0
            blamed = list(evaluated)
        self._on_trial = None
        again = [request_id for request_id in evaluated if request_id not in blamed]
        self._put_off.extendleft(reversed(again))
        return blamed

    def forget(self, request_id: int) -> None:
        """A request ended, whatever the reason."""
        if self._on_trial == request_id:
            self._on_trial = None
        elif request_id in self._put_off:
            self._put_off.remove(request_id)
