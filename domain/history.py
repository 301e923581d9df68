"""The messages of a conversation as an immutable sequence that grows in constant time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from manent.domain.messages import Message


class History(Sequence[Message]):
    """An immutable sequence of messages whose successors share its storage.

    ``extended`` writes behind the end of the shared list if nobody did so before, and copies otherwise; a history
    never looks beyond its own length, so no history ever changes. A fold over n events is O(n) instead of the
    O(n²) that tuples would cost: it matters for sessions of 100,000 messages.
    """

    __slots__ = ("_length", "_shared")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._shared = list(messages)
        self._length = len(self._shared)

    @classmethod
    def _view(cls, shared: list[Message], length: int) -> History:
        view = cls.__new__(cls)
        view._shared = shared  # noqa: SLF001 (its own class)
        view._length = length  # noqa: SLF001 (its own class)
        return view

    def extended(self, *messages: Message) -> History:
        """This history with ``messages`` at its end."""
        shared = self._shared if len(self._shared) == self._length else self._shared[: self._length]
        shared.extend(messages)
        return self._view(shared, self._length + len(messages))

    def truncated(self, length: int) -> History:
        """The first ``length`` messages."""
        return self._view(self._shared, min(length, self._length))

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        if isinstance(index, slice):
            return [self._shared[i] for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(f"message {index} of {self._length}")
        return self._shared[index if index >= 0 else self._length + index]

    def __iter__(self) -> Iterator[Message]:
        for index in range(self._length):
            yield self._shared[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        return self._length == other._length and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # a list is inside: equal by value, never a key

    def __repr__(self) -> str:
        return f"History({list(self)!r})"
