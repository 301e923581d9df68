"""How much of the prompts is evaluated in one step while others generate. Knows times and counts only."""

from __future__ import annotations

import time
from typing import Any

_LONGER = 2.3
"""A step with pieces of prompts takes this much longer than one without; below three: there is chance, too."""
_FLOOR_SHARE = 8
_FASTER, _SLOWER = 0.5, 0.1
"""How much of a usual step the latest is: one that something else held up says little."""


class PrefillPace:
    """The size of chunks, found by measuring: those who generate wait at most about three times as long as usual.

    Where more prompts wait than streams go on, these wait longer in proportion: a pause of one stream is less than
    several first tokens that come late. A chunk has ``most_tokens`` where nobody waits for it, and never less than an
    eighth of that: smaller ones would cost a device more than they spare those who wait.
    """

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._least_tokens = max(1, most_tokens // _FLOOR_SHARE)
        self._usual_s: float | None = None
        self._token_s: float | None = None

    def chunk_tokens(self, *, decoding: int, prefilling: int) -> int:
        """How many tokens of each prompt the next step may evaluate, beside so many streams that go on."""
        if not decoding:
            return self._most_tokens
        if self._usual_s is None or self._token_s is None:
            return self._least_tokens
        share = max(1.0, prefilling / decoding)
        bearable_s = (_LONGER - 1) * self._usual_s * share
        each = bearable_s / max(self._token_s, 1e-9) / max(prefilling, 1)
        return int(min(self._most_tokens, max(self._least_tokens, each)))

    def took(self, step_s: float, *, decoded: bool, prefilled_tokens: int) -> None:
        """A step that handed out tokens, evaluated so many tokens of prompts, or both, took so long.

        A token of a prompt costs less in larger chunks and more behind longer ones, so the latest measurement counts
        most: at once where it is higher, by half where it is lower.
        """
        if not decoded:
            return
        if not prefilled_tokens:
            usual_s = step_s if self._usual_s is None else self._usual_s
            self._usual_s = usual_s + (_FASTER if step_s < usual_s else _SLOWER) * (step_s - usual_s)
        elif self._usual_s is not None:
            token_s = max(step_s - self._usual_s, 0) / prefilled_tokens
            known_s = self._token_s
            self._token_s = token_s if known_s is None or token_s > known_s else (token_s + known_s) / 2


def paced_step(generator: Any, pace: PrefillPace, *, decoding: int, prefilling: int) -> tuple[list[Any], list[Any]]:
    """A step of a batch generator, with as much of the prompts as those who generate can bear.

    Returns its reports on prompts and on tokens.
    """
    began_s, before = time.monotonic(), generator.prompt_tokens
    generator.prefill_step_size = pace.chunk_tokens(decoding=decoding, prefilling=prefilling)
    prompts, tokens = generator.next()
    pace.took(time.monotonic() - began_s, decoded=bool(tokens), prefilled_tokens=generator.prompt_tokens - before)
    return prompts, tokens
