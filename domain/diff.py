"""Two conversations side by side, turn by turn. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

from manent.domain.messages import Message, Role


class TurnStatus(StrEnum):
    """How the two sides of a turn relate."""

    EQUAL = "equal"
    CHANGED = "changed"
    ONLY_IN_A = "only_in_a"
    ONLY_IN_B = "only_in_b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was said, and the answer; the last turn may have none."""

    said: tuple[Message, ...]
    answer: Message | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPair:
    """Turn ``number`` (from 1) of both; ``same_said`` and ``same_answer`` compare words, images, names, tool calls."""

    number: int
    status: TurnStatus
    same_said: bool
    same_answer: bool
    a: Turn | None
    b: Turn | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """``shared`` turns of the common past, which are the same messages, and all pairs that follow them."""

    shared: int
    pairs: tuple[TurnPair, ...]

    def count(self, status: TurnStatus) -> int:
        """How many pairs have it."""
        return sum(pair.status is status for pair in self.pairs)


def compare(a: Sequence[Message], b: Sequence[Message]) -> Comparison:
    """Align both from the end of their common past on, the first turn behind it with the first, and so on."""
    turns_a, turns_b = split_turns(a), split_turns(b)
    shared = 0
    for one, other in zip(turns_a, turns_b, strict=False):
        if _ids(one) != _ids(other):
            break
        shared += 1
    rest = zip_longest(turns_a[shared:], turns_b[shared:])
    pairs = tuple(_pair(number, *both) for number, both in enumerate(rest, start=shared + 1))
    return Comparison(shared=shared, pairs=pairs)


def split_turns(messages: Sequence[Message]) -> list[Turn]:
    """A conversation as turns: each ends with an assistant's message, except perhaps the last."""
    turns: list[Turn] = []
    said: list[Message] = []
    for message in messages:
        if message.role is Role.ASSISTANT:
            turns.append(Turn(said=tuple(said), answer=message))
            said = []
        else:
            said.append(message)
    if said:
        turns.append(Turn(said=tuple(said), answer=None))
    return turns


def _ids(turn: Turn) -> tuple[str | None, ...]:
    answer = None if turn.answer is None else turn.answer.message_id
    return (*(message.message_id for message in turn.said), answer)


def _pair(number: int, a: Turn | None, b: Turn | None) -> TurnPair:
    if a is None or b is None:
        status = TurnStatus.ONLY_IN_B if a is None else TurnStatus.ONLY_IN_A
        return TurnPair(number=number, status=status, same_said=False, same_answer=False, a=a, b=b)
    same_said = [_words(message) for message in a.said] == [_words(message) for message in b.said]
    same_answer = _words(a.answer) == _words(b.answer)
    status = TurnStatus.EQUAL if same_said and same_answer else TurnStatus.CHANGED
    return TurnPair(number=number, status=status, same_said=same_said, same_answer=same_answer, a=a, b=b)


def _words(message: Message | None) -> tuple[object, ...] | None:
    """A message without its id."""
    if message is None:
        return None
    return message.role, message.content, message.name, message.tool_calls, message.tool_call_id, message.images
