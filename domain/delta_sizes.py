"""How a chat was streamed, delta by delta: what is recorded of it, and the deltas made again from the record.

The ids of a chat's events count deltas. So whoever tells a chat from the log alone needs the deltas that its first
readers had, of each choice, and also those that say nothing; their content is in the outcome, and not repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from manent.domain.generation import TextDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaSizes:
    """What each delta had, in their order.

    ``texts`` and ``reasoning`` count characters, ``tool_calls`` and ``logprobs`` entries; ``choices`` says whose delta
    it is. All but ``texts`` are empty where they would be zeros.
    """

    texts: tuple[int, ...]
    reasoning: tuple[int, ...] = ()
    tool_calls: tuple[int, ...] = ()
    logprobs: tuple[int, ...] = ()
    choices: tuple[int, ...] = ()


def delta_sizes(deltas: Sequence[TextDelta]) -> DeltaSizes:
    """What is recorded of ``deltas``."""
    return DeltaSizes(
        texts=tuple(len(delta.text) for delta in deltas),
        reasoning=_unless_zeros(len(delta.reasoning) for delta in deltas),
        tool_calls=_unless_zeros(len(delta.tool_calls) for delta in deltas),
        logprobs=_unless_zeros(len(delta.logprobs) for delta in deltas),
        choices=_unless_zeros(delta.index for delta in deltas),
    )


def deltas_of(sizes: DeltaSizes, choices: Sequence[TextDelta]) -> list[TextDelta]:
    """The deltas again, without token ids; each choice's whole content is given as one delta."""
    left = {whole.index: _Left(whole) for whole in choices}
    deltas = []
    for number, text in enumerate(sizes.texts):
        index = _at(sizes.choices, number)
        cut = left.setdefault(index, _Left(TextDelta(index=index, text="", token_ids=())))
        reasoning, calls = _at(sizes.reasoning, number), _at(sizes.tool_calls, number)
        deltas.append(cut.next(text, reasoning, calls, _at(sizes.logprobs, number)))
    return deltas


class _Left:
    """What is left of one choice."""

    def __init__(self, whole: TextDelta) -> None:
        self._whole = whole
        self._text = self._reasoning = self._calls = self._logprobs = 0

    def next(self, text: int, reasoning: int, calls: int, logprobs: int) -> TextDelta:
        """The next delta, which has so much of each."""
        whole = self._whole
        delta = TextDelta(
            index=whole.index,
            text=whole.text[self._text : self._text + text],
            token_ids=(),
            logprobs=whole.logprobs[self._logprobs : self._logprobs + logprobs],
            reasoning=whole.reasoning[self._reasoning : self._reasoning + reasoning],
            tool_calls=whole.tool_calls[self._calls : self._calls + calls],
        )
        self._text, self._reasoning = self._text + text, self._reasoning + reasoning
        self._calls, self._logprobs = self._calls + calls, self._logprobs + logprobs
        return delta


def _unless_zeros(column: Iterable[int]) -> tuple[int, ...]:
    sizes = tuple(column)
    return sizes if any(sizes) else ()


def _at(column: tuple[int, ...], number: int) -> int:
    return column[number] if column else 0
