"""The messages of a conversation as an immutable sequence that grows in constant time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import is_
from typing import overload

from manent.domain.messages import Message


class _Places:
    """Where messages stand in a list that only grows, as far as it was looked through; of equal ids the first."""

    __slots__ = ("known", "seen")

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.seen = 0

    def find(self, message_id: str, messages: list[Message]) -> int | None:
        """The index of the message with this id."""
        for index in range(self.seen, len(messages)):
            self.known.setdefault(messages[index].message_id, index)
        self.seen = len(messages)
        return self.known.get(message_id)


class History(Sequence[Message]):
    """An immutable sequence of messages whose successors share its storage.

    ``extended`` writes behind the end of the shared list if nobody did so before, and copies otherwise; a history
    never looks beyond its own length, so no history ever changes. A fold over n events is O(n) instead of the
    O(n²) that tuples would cost: it matters for sessions of 100,000 messages.
    """

    __slots__ = ("_length", "_places", "_shared")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._shared = list(messages)
        self._places = _Places()
        self._length = len(self._shared)

    @classmethod
    def _view(cls, shared: list[Message], places: _Places, length: int) -> History:
        view = cls.__new__(cls)
        view._shared = shared  # noqa: SLF001 (its own class)
        view._places = places  # noqa: SLF001 (its own class)
        view._length = length  # noqa: SLF001 (its own class)
        return view

    def extended(self, *messages: Message) -> History:
        """This history with ``messages`` at its end; where the very same were put there before, it is that one's."""
        length = self._length + len(messages)
        behind = self._shared[self._length : length]
        if len(behind) == len(messages) and all(map(is_, behind, messages)):
            return self._view(self._shared, self._places, length)
        at_end = len(self._shared) == self._length
        shared, places = (self._shared, self._places) if at_end else (self._shared[: self._length], _Places())
        shared.extend(messages)
        return self._view(shared, places, length)

    def truncated(self, length: int) -> History:
        """The first ``length`` messages."""
        return self._view(self._shared, self._places, min(length, self._length))

    def index_of(self, message_id: str) -> int | None:
        """Where the message with this id is, or None: a look-up once every message was looked at one time.

        Successors share what was learned as they share the messages.
        """
        index = self._places.find(message_id, self._shared)
        return index if index is not None and index < self._length else None

    def shared_length(self, other: History) -> int:
        """How many messages both begin with, the very same objects; quick where they share their storage."""
        length = min(self._length, other._length)
        if self._shared is other._shared:
            return length
        pairs = zip(islice(self._shared, length), other._shared, strict=False)
        return next((index for index, (one, another) in enumerate(pairs) if one is not another), length)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            return self._shared[start:stop] if step == 1 else [self._shared[i] for i in range(start, stop, step)]
        if not -self._length <= index < self._length:
            raise IndexError(f"message {index} of {self._length}")
        return self._shared[index if index >= 0 else self._length + index]

    def __iter__(self) -> Iterator[Message]:
        return islice(self._shared, self._length)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        return self._length == other._length and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # a list is inside: equal by value, never a key

    def __repr__(self) -> str:
        return f"History({list(self)!r})"
