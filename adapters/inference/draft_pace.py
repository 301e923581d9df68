"""Whether a draft model pays, found by measuring: time per token with it and without. Knows times and counts only."""

from __future__ import annotations

_PLAIN_STEPS = 4
"""So many steps without proposals tell what a token costs without."""
_TRIAL_STEPS = 6
_REST_STEPS, _REST_STEPS_MAX = 64, 1024
_FADES = 0.9
"""What an older measurement counts beside the next one."""


class _Cost:
    """Seconds for each token, the latest steps counting most."""

    def __init__(self) -> None:
        self.steps = 0
        self._spent_s = self._tokens = 0.0

    def add(self, step_s: float, tokens: int) -> None:
        """A step took so long and gave so many tokens."""
        self.steps += 1
        self._spent_s = _FADES * self._spent_s + step_s
        self._tokens = _FADES * self._tokens + tokens

    @property
    def token_s(self) -> float:
        """Of each token; 0 before the first."""
        return self._spent_s / self._tokens if self._tokens else 0.0


class DraftPace:
    """How many tokens the draft model proposes for the next step.

    A token with proposals may take longer than one without: where too few are chosen, or the draft model is hardly
    faster than the model. Then it rests, longer each time that it is tried in vain.
    """

    def __init__(self, draft_tokens: int) -> None:
        self._draft_tokens = draft_tokens
        self._plain, self._drafted = _Cost(), _Cost()
        self._was_drafted: bool | None = None
        self._rest_steps, self._resting = _REST_STEPS, 0

    @property
    def proposals(self) -> int:
        """For the next step; 0 where it is better without."""
        return 0 if self._resting or self._plain.steps < _PLAIN_STEPS else self._draft_tokens

    def took(self, step_s: float, *, tokens: int, drafted: bool) -> None:
        """A step of a sequence that is alone took so long and gave so many tokens, with proposals or without.

        The first step after a change says nothing: without proposals an evaluation is set in motion a step ahead.
        """
        changed, self._was_drafted = drafted is not self._was_drafted, drafted
        self._resting -= bool(self._resting) and not drafted
        if changed:
            return
        (self._drafted if drafted else self._plain).add(step_s, tokens)
        if self._drafted.steps >= _TRIAL_STEPS:
            self._judge()

    def _judge(self) -> None:
        if self._drafted.token_s <= self._plain.token_s:
            self._rest_steps = _REST_STEPS
            return
        self._resting, self._drafted = self._rest_steps, _Cost()
        self._rest_steps = min(2 * self._rest_steps, _REST_STEPS_MAX)
